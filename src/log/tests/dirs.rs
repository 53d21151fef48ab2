use std::{
    cell::Cell,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use super::*;
use crate::{
    base::{BrokerId, TopicPartition},
    log::{
        LogDirs,
        checkpoint::{self, Offsets},
        dirs::{Checkpoints, DirsError, LogDir, Owner, SharedLogDirs, mark_clean, read_topic_id},
        disk::RealDisk,
        faulty::Operation,
    },
};

fn owner(node: i32, cluster: Option<&str>) -> Owner {
    let (node_id, cluster_id) = (BrokerId(node), cluster.map(str::to_owned));
    Owner { node_id, cluster_id, new_cluster_id: "new".to_owned(), boot_id: None }
}

fn open_dirs(disk: &FaultyDisk, paths: &[&str], owner: &Owner) -> Result<LogDirs, DirsError> {
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let mut ids = 0;
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let metadata_dir = paths.last().cloned().unwrap_or_default();
    LogDirs::open(disk, &paths, &metadata_dir, owner, || {
        ids += 1;
        Uuid::from_u128(ids)
    })
}

#[test]
fn partitions_go_where_there_are_fewest() {
    let disk = FaultyDisk::default();
    let mut dirs = open_dirs(&disk, &["/a", "/b"], &owner(1, None)).expect("opens");
    assert_eq!(dirs.cluster_id(), "new");
    for n in 0..5 {
        let dir = dirs.pick(&[]).expect("one is online");
        assert_eq!(dir, n % 2);
        let partition = TopicPartition::new("t", n as i32);
        let mut place = dirs.place(&partition, |_| false, &[]).expect("one is online");
        assert_eq!(place.dir_path, dirs.dirs()[dir].path);
        place.create(Uuid::from_u128(9)).expect("creates");
    }
    assert_eq!(dirs.pick(&["/b".into()]), Some(0), "it has more, but the other is cordoned");
    assert_eq!(dirs.pick(&["/a".into(), "/b".into()]), Some(1));
    dirs.mark_offline(1);
    assert_eq!(dirs.pick(&[]), Some(0));
}

#[test]
fn refused_start_leaves_nothing_behind() {
    let disk = FaultyDisk::default();
    open_dirs(&disk, &["/old"], &owner(2, None)).expect("opens");
    disk.create_dir_all(Path::new("/there")).expect("creates");
    let is_there = |path: &str| disk.list(Path::new(path)).is_ok();
    let names = |path: &str| disk.list(Path::new(path)).expect("lists").len();
    let refused = open_dirs(&disk, &["/new/deep/a", "/there", "/old"], &owner(1, None));
    assert!(matches!(refused, Err(DirsError::OtherNode { .. })));
    assert!(!is_there("/new"));
    assert_eq!(names("/there"), 0);
    assert!(names("/old") > 0);
    // The last directory has the metadata log.
    drop(open_dirs(&disk, &["/bad"], &owner(1, None)).expect("opens"));
    disk.flip(Path::new("/bad/meta.properties"), 0, 0x80);
    let refused = open_dirs(&disk, &["/new/a", "/bad"], &owner(1, None));
    assert!(matches!(refused, Err(DirsError::Log(_))));
    assert!(!is_there("/new"));
    open_dirs(&disk, &["/bad", "/new/a"], &owner(1, None)).expect("opens without the other");
}

#[test]
fn what_is_settled_counts_on_the_same_run_of_the_machine() {
    let disk = FaultyDisk::default();
    let on = |boot: Option<&str>| {
        let owner = Owner { boot_id: boot.map(str::to_owned), ..owner(1, None) };
        open_dirs(&disk, &["/a"], &owner).expect("opens")
    };
    let offsets = Offsets::from([(TopicPartition::new("t", 0), 7)]);
    let file = on(Some("one")).checkpoint_file(0, checkpoint::SETTLED).expect("it is named");
    file.replace(&offsets).expect("writes");
    assert_eq!(on(Some("one")).dirs()[0].checkpoints.settled, offsets);
    assert_eq!(on(Some("two")).dirs()[0].checkpoints.settled, Offsets::new());
    assert_eq!(on(Some("one")).dirs()[0].checkpoints.settled, Offsets::new(), "it was removed");
    let unnamed = on(None);
    assert!(unnamed.checkpoint_file(0, checkpoint::SETTLED).is_none());
    drop(unnamed);
    assert_eq!(on(None).dirs()[0].checkpoints.settled, Offsets::new());
}

/// Pages that were not synced are lost when a file system is unmounted. A network file system may
/// lose them at any time.
#[test]
fn settled_offsets_hold_until_the_file_system_is_mounted_again() {
    let disk = FaultyDisk::default();
    let owner = Owner { boot_id: Some("one".to_owned()), ..owner(1, None) };
    let open = || open_dirs(&disk, &["/a"], &owner).expect("opens");
    let offsets = Offsets::from([(TopicPartition::new("t", 0), 7)]);
    let dirs = open();
    let file = dirs.checkpoint_file(0, checkpoint::SETTLED).expect("it is named");
    file.replace(&offsets).expect("writes");
    drop(dirs);
    assert_eq!(open().dirs()[0].checkpoints.settled, offsets);
    disk.mount();
    assert_eq!(open().dirs()[0].checkpoints.settled, Offsets::new());
    disk.lose_pages();
    assert!(open().checkpoint_file(0, checkpoint::SETTLED).is_none());
}

#[test]
fn settled_offsets_that_cannot_be_written_are_removed() {
    let disk = FaultyDisk::default();
    let owner = Owner { boot_id: Some("one".to_owned()), ..owner(1, None) };
    let dirs = open_dirs(&disk, &["/a"], &owner).expect("opens");
    let file = dirs.checkpoint_file(0, checkpoint::SETTLED).expect("it is named");
    let offsets = Offsets::from([(TopicPartition::new("t", 0), 7)]);
    file.replace(&offsets).expect("writes");
    disk.fail_files(Some(|operation, _| {
        (operation == Operation::Write).then_some(rustix::io::Errno::IO)
    }));
    file.replace(&Offsets::new()).expect("it is a hint");
    disk.fail_files(None);
    drop(dirs);
    let dirs = open_dirs(&disk, &["/a"], &owner).expect("opens");
    assert_eq!(dirs.dirs()[0].checkpoints.settled, Offsets::new(), "a cut may have made it false");
    drop(dirs);
    disk.fail_files(Some(|operation, path| {
        let is_settled = path.to_string_lossy().contains(checkpoint::SETTLED);
        (operation == Operation::Read && is_settled).then_some(rustix::io::Errno::IO)
    }));
    open_dirs(&disk, &["/a"], &owner).expect("opens without");
}

#[test]
fn a_stop_and_start_know_each_other() {
    let disk = FaultyDisk::default();
    let mut dirs = open_dirs(&disk, &["/a"], &owner(1, Some("c"))).expect("opens");
    assert!(dirs.dirs()[0].clean_shutdown.is_none());
    let partition = TopicPartition::new("some-topic", 3);
    let gone = TopicPartition::new("gone", 0);
    let mut place = dirs.place(&partition, |_| false, &[]).expect("it is online");
    place.create(Uuid::from_u128(9)).expect("creates");
    let path = place.path;
    let mut place = dirs.place(&gone, |_| false, &[]).expect("it is online");
    place.create(Uuid::from_u128(8)).expect("creates");
    let shared = SharedLogDirs::new(dirs);
    shared.delete_partition(&place.path, &gone, Uuid::from_u128(7)).expect("renames");
    let mut offsets = Checkpoints::default();
    offsets.recovery_points.insert(partition.clone(), 17);
    offsets.log_starts.insert(partition.clone(), 4);
    for (name, offsets) in [
        (checkpoint::RECOVERY_POINT, &offsets.recovery_points),
        (checkpoint::LOG_START, &offsets.log_starts),
        (checkpoint::REPLICATION, &offsets.high_watermarks),
    ] {
        let file = shared.lock().checkpoint_file(0, name);
        file.expect("any has one").replace(offsets).expect("writes");
    }
    mark_clean(&disk, Path::new("/a"), 12).expect("writes");
    drop(shared);
    let mut dirs = open_dirs(&disk, &["/a"], &owner(1, None)).expect("opens again");
    assert_eq!(dirs.cluster_id(), "c");
    let epoch = dirs.dirs()[0].clean_shutdown.as_ref().map(|clean| clean.broker_epoch);
    assert_eq!(epoch, Some(12));
    let found = dirs.list();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].partition, &found[0].path), (&partition, &path));
    assert_eq!((found[0].recovery_point, found[0].log_start), (17, Some(4)));
    let id = read_topic_id(&**dirs.disk(), &found[0].path).expect("reads");
    assert_eq!(id, Some(Uuid::from_u128(9)));
    assert!(found[0].clean);
    let leftovers = dirs.take_leftovers();
    assert_eq!(leftovers.len(), 1);
    for leftover in leftovers {
        leftover.remove().expect("removes");
    }
    drop(dirs);
    let mut dirs = open_dirs(&disk, &["/a"], &owner(1, None)).expect("opens a third time");
    assert!(!dirs.list()[0].clean, "the marker counts once");
    assert!(dirs.take_leftovers().is_empty());
}

/// A former topic's records stay if the directory for a new topic of that name cannot be created.
#[test]
fn failed_creation_removes_only_its_own_directory() {
    let disk = FaultyDisk::default();
    let partition = TopicPartition::new("t", 0);
    let on_a = |dir: &LogDir| dir.path == Path::new("/a");
    let mut dirs = open_dirs(&disk, &["/a", "/b"], &owner(1, None)).expect("opens");
    let mut former = dirs.place(&partition, on_a, &[]).expect("it is online");
    former.create(Uuid::from_u128(8)).expect("creates");
    let mut place = dirs.place(&partition, on_a, &[]).expect("it is online");
    let dirs = SharedLogDirs::new(dirs);
    disk.fail_files(Some(|operation, _| {
        (operation == Operation::Rename).then_some(rustix::io::Errno::NOSPC)
    }));
    place.create(Uuid::from_u128(9)).expect_err("the former directory is in the way");
    dirs.discard(&place);
    disk.fail_files(None);
    let id = read_topic_id(&disk, &place.path).expect("reads");
    assert_eq!(id, Some(Uuid::from_u128(8)), "the former topic's directory is kept");
    let next = TopicPartition::new("t", 1);
    dirs.lock().place(&next, |dir| dir.path == Path::new("/b"), &[]).expect("it is online");
    assert_eq!(dirs.lock().pick(&[]), Some(0), "both have one: the failed one does not count");

    place.create(Uuid::from_u128(9)).expect("renames the former one to a stray one");
    dirs.discard(&place);
    let names: Vec<_> = disk.list(Path::new("/a")).expect("lists").into_iter().collect();
    let names: Vec<_> = names.iter().filter(|it| it.is_dir).map(|it| &*it.name).collect();
    assert!(matches!(&names[..], [aside] if aside.ends_with("-stray")), "{names:?}");
}

/// The file system allows 255 bytes in a name.
#[test]
fn former_directories_with_long_names_become_stray() {
    let site = tempfile::tempdir().expect("temporary directory");
    let paths = [site.path().to_owned()];
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let dirs = LogDirs::open(disk, &paths, &paths[0], &owner(1, None), Uuid::new_v4);
    let mut dirs = dirs.expect("opens");
    let partition = TopicPartition::new("t".repeat(249), 12345);
    for id in [8, 9] {
        let mut place = dirs.place(&partition, |_| false, &[]).expect("it is online");
        place.create(Uuid::from_u128(id)).expect("creates");
        let found = read_topic_id(&RealDisk, &place.path).expect("reads");
        assert_eq!(found, Some(Uuid::from_u128(id)));
    }
    // The name of a directory for a move is longer than that of its partition.
    let moving = TopicPartition::new("t".repeat(210), 0);
    let mut copy = dirs.place_future(0, &moving, Uuid::from_u128(7)).expect("has a name");
    copy.create(Uuid::from_u128(8)).expect("creates");
    let dirs = SharedLogDirs::new(dirs);
    dirs.rename_to_stray(&copy.path, &moving).expect("renames");
    assert_eq!(dirs.lock().list().len(), 1, "the others are not in the way");
    let kept = RealDisk.list(site.path()).expect("lists");
    assert_eq!(kept.iter().filter(|it| it.name.ends_with("-stray")).count(), 2);
}

/// An operation waits while its volume hangs, but readers of the directories' state do not.
#[test]
fn directories_are_not_locked_while_a_rename_or_removal_hangs() {
    let disk = FaultyDisk::default();
    let mut dirs = open_dirs(&disk, &["/a", "/b"], &owner(1, None)).expect("opens");
    let mut place = |index| {
        let partition = TopicPartition::new("t", index);
        let place = dirs.place(&partition, |dir| dir.path == Path::new("/a"), &[]);
        let mut place = place.expect("it is online");
        place.create(Uuid::from_u128(9)).expect("creates");
        (partition, place)
    };
    let (deleted, aside, discarded) = (place(0), place(1), place(2));
    let copy = dirs.place_future(0, &TopicPartition::new("t", 3), Uuid::from_u128(8));
    let mut copy = copy.expect("has a name");
    copy.create(Uuid::from_u128(9)).expect("creates");
    let dirs = &SharedLogDirs::new(dirs);
    let unique = Uuid::from_u128(7);
    let delete = || drop(dirs.delete_partition(&deleted.1.path, &deleted.0, unique));
    let rename_to_stray = || drop(dirs.rename_to_stray(&aside.1.path, &aside.0));
    let discard = || dirs.discard(&discarded.1);
    let promote = || drop(dirs.promote(&copy.path, &TopicPartition::new("t", 3)));
    let operations: [&(dyn Fn() + Sync); 4] = [&delete, &rename_to_stray, &discard, &promote];
    for operation in operations {
        disk.allow_renames(Some(0));
        std::thread::scope(|scope| {
            let running = scope.spawn(operation);
            while disk.waiting_renames() == 0 {
                assert!(!running.is_finished(), "it needs the disk");
                std::thread::yield_now();
            }
            let is_free = dirs.try_lock().is_some();
            let hung = (dirs.hung_for(Duration::from_secs(3600)), dirs.hung_for(Duration::ZERO));
            disk.allow_renames(None);
            assert!(is_free, "the directories are locked");
            assert_eq!(hung, (vec![], vec![PathBuf::from("/a")]));
        });
        assert!(dirs.hung_for(Duration::ZERO).is_empty(), "it has ended");
    }
    for index in 4..6 {
        let partition = TopicPartition::new("t", index);
        dirs.lock().place(&partition, |dir| dir.path == Path::new("/b"), &[]).expect("online");
    }
    assert_eq!(dirs.lock().pick(&[]), Some(0), "two of its four do not count");
    let mut names: Vec<_> = disk.list(Path::new("/a")).expect("lists").into_iter().collect();
    names.retain(|entry| entry.is_dir);
    assert_eq!(names.len(), 3, "one is removed: {names:?}");
}

#[test]
fn directories_of_others_are_refused() {
    let disk = FaultyDisk::default();
    let dirs = open_dirs(&disk, &["/a"], &owner(1, Some("c"))).expect("opens");
    let in_use = open_dirs(&disk, &["/a"], &owner(1, None)).expect_err("is locked");
    assert!(matches!(in_use, DirsError::InUse(_)), "{in_use}");
    drop(dirs);
    let node = open_dirs(&disk, &["/a"], &owner(2, None)).expect_err("is another node's");
    assert_eq!(node.to_string(), "log directory /a belongs to node 1, but node.id is 2");
    let cluster =
        open_dirs(&disk, &["/a"], &owner(1, Some("d"))).expect_err("is another cluster's");
    assert!(matches!(cluster, DirsError::OtherCluster { .. }), "{cluster}");
    let twice = open_dirs(&disk, &["/a", "/a"], &owner(1, None)).expect_err("is listed twice");
    assert!(matches!(twice, DirsError::Twice(_)), "{twice}");
    drop(open_dirs(&disk, &["/b"], &owner(1, Some("d"))).expect("opens"));
    let mixed = open_dirs(&disk, &["/a", "/b"], &owner(1, None)).expect_err("are of two clusters");
    assert!(matches!(mixed, DirsError::OtherCluster { .. }), "{mixed}");
}

/// Kafka's `MetaPropertiesEnsemble` and `KafkaRaftServer.initializeLogDirs` check the same.
#[test]
fn separate_metadata_directory_has_its_own_id_and_the_same_owner() {
    let disk = FaultyDisk::default();
    let next_id = Cell::new(0);
    let open = |dir: &str, metadata_dir: &str, owner: &Owner| {
        let new_id = || {
            next_id.set(next_id.get() + 1);
            Uuid::from_u128(next_id.get())
        };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        LogDirs::open(disk, &[dir.into()], Path::new(metadata_dir), owner, new_id)
    };
    let dirs = open("/a", "/m", &owner(1, None)).expect("opens");
    let (id, metadata_id) = (dirs.dirs()[0].id, dirs.metadata_dir_id());
    assert_ne!(id, metadata_id);
    drop(dirs);
    let dirs = open("/a", "/m", &owner(1, None)).expect("opens again");
    assert_eq!((dirs.dirs()[0].id, dirs.metadata_dir_id()), (id, metadata_id));
    drop(dirs);
    let other = open("/b", "/m", &owner(2, None)).expect_err("is another node's");
    assert_eq!(other.to_string(), "log directory /m belongs to node 1, but node.id is 2");
    let other = open("/b", "/m", &owner(1, Some("d"))).expect_err("is another cluster's");
    assert!(matches!(other, DirsError::OtherCluster { .. }), "{other}");

    disk.create_dir_all(Path::new("/m/__cluster_metadata-0")).expect("creates");
    drop(open("/a", "/m", &owner(1, None)).expect("it is the configured one"));
    let elsewhere = open("/m", "/a", &owner(1, None)).expect_err("the metadata is in /m");
    assert!(matches!(elsewhere, DirsError::MetadataElsewhere { .. }), "{elsewhere}");
    let dirs = open("/m", "/m", &owner(1, None)).expect("it is in the only directory");
    assert_eq!(dirs.metadata_dir_id(), metadata_id);
}

#[test]
fn a_damaged_directory_leaves_the_others_in_use() {
    let disk = FaultyDisk::default();
    drop(open_dirs(&disk, &["/a", "/b"], &owner(1, None)).expect("opens"));
    let meta = PathBuf::from("/a/meta.properties");
    for at in 0..disk.len(&meta).expect("is there") {
        disk.flip(&meta, at, 0x80);
    }
    let dirs = open_dirs(&disk, &["/a", "/b"], &owner(1, None)).expect("one is left");
    let offline: Vec<bool> = dirs.dirs().iter().map(|dir| dir.is_offline()).collect();
    assert_eq!(offline, [true, false]);
    drop(dirs);
    let alone = open_dirs(&disk, &["/a"], &owner(1, None)).expect_err("none is left");
    assert!(matches!(alone, DirsError::AllFailed(_)), "{alone}");
}
