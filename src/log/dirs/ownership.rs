//! The node and the cluster that log directories belong to, as their `meta.properties` tell.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{DirsError, Disk, During, FileDurability, LogError, MetaProperties, replace_file};
use crate::{
    base::{BrokerId, METADATA_TOPIC, TopicPartition},
    log::names,
};

/// The node and the cluster that the directories must belong to.
#[derive(Debug, Clone)]
pub struct Owner {
    pub node_id: BrokerId,
    /// `None` accepts the cluster id that the directories have, or `new_cluster_id` if they have
    /// none.
    pub cluster_id: Option<String>,
    pub new_cluster_id: String,
    /// Identifies the current run of the machine, if the machine has such an id.
    pub boot_id: Option<String>,
}

/// Checks that all directories with a `meta.properties` belong to the same node and cluster, and
/// returns the cluster id.
pub(super) fn check_owner<'a>(
    dirs: impl Iterator<Item = (&'a Path, &'a MetaProperties)>,
    owner: &Owner,
) -> Result<String, DirsError> {
    let mut cluster_id = owner.cluster_id.clone();
    let mut ids: HashMap<Uuid, &Path> = HashMap::new();
    for (path, meta) in dirs {
        let path_owned = path.to_owned();
        if meta.node_id != owner.node_id {
            let (found, configured) = (meta.node_id, owner.node_id);
            return Err(DirsError::OtherNode { path: path_owned, found, configured });
        }
        let expected = cluster_id.get_or_insert_with(|| meta.cluster_id.clone());
        if *expected != meta.cluster_id {
            let (found, expected) = (meta.cluster_id.clone(), expected.clone());
            return Err(DirsError::OtherCluster { path: path_owned, found, expected });
        }
        if let Some(first) = meta.directory_id.and_then(|id| ids.insert(id, path)) {
            return Err(DirsError::SameId { first: first.to_owned(), second: path_owned });
        }
    }
    Ok(cluster_id.unwrap_or_else(|| owner.new_cluster_id.clone()))
}

/// The directory of the metadata log in the metadata log directory.
pub fn metadata_log(metadata_dir: &Path) -> PathBuf {
    metadata_dir.join(TopicPartition::new(METADATA_TOPIC, 0).to_string())
}

/// Checks that only `metadata_dir` has a metadata log, as Kafka's
/// `KafkaRaftServer.initializeLogDirs` does. A changed `metadata.log.dir` would otherwise begin
/// with empty metadata.
pub(super) fn check_metadata_location(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    metadata_dir: &Path,
) -> Result<(), DirsError> {
    for dir in dirs.iter().filter(|dir| *dir != metadata_dir) {
        let path = metadata_log(dir);
        if disk.list(&path).is_ok() {
            let metadata_dir = metadata_dir.to_owned();
            return Err(DirsError::MetadataElsewhere { path, metadata_dir });
        }
    }
    Ok(())
}

/// Returns the id of a directory. Writes its `meta.properties` if that is missing or has no id.
pub(super) fn directory_id(
    disk: &dyn Disk,
    dir: &Path,
    meta: Option<&MetaProperties>,
    (owner, cluster_id): (&Owner, &str),
    new_id: impl FnOnce() -> Uuid,
) -> Result<Uuid, LogError> {
    if let Some(id) = meta.and_then(|meta| meta.directory_id) {
        return Ok(id);
    }
    let id = new_id();
    let cluster_id = cluster_id.to_owned();
    let meta = MetaProperties { cluster_id, node_id: owner.node_id, directory_id: Some(id) };
    let path = dir.join(names::META_PROPERTIES);
    // A broker cannot start with a torn `meta.properties`, so it is synced.
    let written = replace_file(disk, &path, meta.encode().as_bytes(), FileDurability::Synced);
    written.during("write", &path).map(|()| id)
}
