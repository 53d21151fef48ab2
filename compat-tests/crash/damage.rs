//! Files that are truncated, flipped, zeroed, emptied or removed between two runs. The next start
//! must work or name the bad file. Other partitions must be unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    alone, load,
    shared::process::{Process, Site},
};

pub const RECORDS: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Cut,
    Flip,
    Zero,
    Empty,
    Missing,
}

const DAMAGES: [Damage; 5] =
    [Damage::Cut, Damage::Flip, Damage::Zero, Damage::Empty, Damage::Missing];

impl Damage {
    fn apply(self, path: &Path) {
        if self == Damage::Missing {
            return fs::remove_file(path).expect("it is there");
        }
        let mut bytes = fs::read(path).expect("it is there");
        let tail = bytes.len().min(40);
        let at = bytes.len() - tail;
        match self {
            Damage::Cut => bytes.truncate(at + tail / 2),
            Damage::Flip if tail > 0 => bytes[at + tail / 2] ^= 0x10,
            Damage::Zero => bytes[at..].fill(0),
            Damage::Empty => bytes.clear(),
            Damage::Flip | Damage::Missing => {}
        }
        fs::write(path, bytes).expect("it can be written");
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a name");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("it can be copied")),
        }
    }
}

/// All files below a directory, as paths relative to it.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("a name").path();
            match path.is_dir() {
                true => dirs.push(path),
                false => found.push(path.strip_prefix(dir).expect("inside").to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// Writes two topics, one with several segments and an idempotent producer.
pub fn fill(process: &Process) {
    let mut client = process.client();
    let rolls = [("segment.ms", "30"), ("index.interval.bytes", "200")];
    assert_eq!(client.create_topic("damaged", 1, &rolls).expect("answered"), 0);
    assert_eq!(client.create_topic("whole", 1, &[]).expect("answered"), 0);
    let (id, epoch) = client.init_producer_id().expect("answered");
    for n in 0..RECORDS {
        let batch = load::batch(&[(0, n)], 50, Some((id, epoch, n as i32)));
        assert_eq!(client.produce(("damaged", 0), -1, &batch).expect("answered"), Ok(n as i64));
        let batch = load::batch(&[(1, n)], 50, None);
        assert_eq!(client.produce(("whole", 0), -1, &batch).expect("answered"), Ok(n as i64));
        if n % 20 == 10 {
            std::thread::sleep(Duration::from_millis(40));
        }
    }
}

/// Whether damage to this file may prevent a start.
pub fn may_refuse(file: &Path) -> bool {
    file.ends_with("meta.properties") || file.starts_with("__cluster_metadata-0")
}

fn keys(found: &[(i64, Vec<u8>)]) -> Vec<u64> {
    found.iter().map(|(_, key)| load::id_of(key).1).collect()
}

/// Starts a broker on damaged files and checks what it serves.
fn run(site: &Site, file: &Path, what: &str) {
    let mut process = site.spawn();
    if let Err(status) = process.wait_ready() {
        let log = process.log();
        assert!(may_refuse(file), "{what}: it does not start: {log}");
        assert!(!status.success(), "{what}: it ends with an error: {status}");
        let last = log.lines().last().unwrap_or_default();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        assert!(last.starts_with("sordini: "), "{what}: the last line says why: {log}");
        assert!(
            last.contains(&*name) || last.contains("__cluster_metadata-0"),
            "{what}: it names the file: {last}"
        );
        return;
    }
    let log = process.log();
    assert!(!log.contains("panicked"), "{what}: no panic: {log}");
    let mut client = process.client();
    if file.starts_with("__cluster_metadata-0") {
        // Topics may be missing from the metadata then, but their files must remain.
        for partition in ["damaged-0", "whole-0"] {
            assert!(site.log_dir().join(partition).exists(), "{what}: {partition} is kept");
        }
        return process.stop();
    }
    let whole: Vec<u64> = (0..RECORDS).collect();
    assert_eq!(keys(&load::read_all(&mut client, ("whole", 0))), whole, "{what}: the other topic");
    // The broker need not find a flipped bit in a record. The consumer's CRC check does.
    let is_log = file.extension().is_some_and(|it| it == "log");
    if has_stray(site) {
        // The file names another topic id now, so the directory is a stray partition, as in Kafka.
        assert!(file.ends_with("partition.metadata"), "{what}: nothing else becomes stray");
    } else if !is_log {
        let found = keys(&load::read_all(&mut client, ("damaged", 0)));
        assert_eq!(found, whole, "{what}: nothing is lost with a hint");
    } else if file.starts_with("damaged-0") {
        let fetched = client.fetch(("damaged", 0), 0).expect("a fetch is answered");
        assert!(
            fetched.code == 0 || is_first(site, file),
            "{what}: what is before it is served, not {}: {log}",
            fetched.code
        );
    }
    let batch = load::batch(&[(2, 0)], 50, None);
    let answer = client.produce(("whole", 0), -1, &batch).expect("answered");
    assert_eq!(answer, Ok(RECORDS as i64), "{what}: the other topic takes more");
    let answer = client.produce(("damaged", 0), -1, &batch).expect("answered");
    assert!(answer.is_ok(), "{what}: the damaged one takes more: {answer:?}");
    process.stop();
}

fn has_stray(site: &Site) -> bool {
    let names = fs::read_dir(site.log_dir()).expect("a log directory");
    let mut names = names.filter_map(|entry| entry.ok());
    names.any(|entry| entry.file_name().to_string_lossy().ends_with("-stray"))
}

fn is_first(site: &Site, file: &Path) -> bool {
    let path = site.log_dir().join(file);
    path.file_name().is_some_and(|name| name == "00000000000000000000.log")
}

fn every_damage(base: &Path, is_clean: bool) {
    let mut tried = 0;
    let data = base.join("data");
    for file in files(&data) {
        let name = file.to_string_lossy();
        let is_ours = name.starts_with("damaged-0/")
            || name.starts_with("__cluster_metadata-0/")
            || !name.contains('/');
        if !is_ours || name.starts_with(".lock") {
            continue;
        }
        for damage in DAMAGES {
            let is_first_log = name.starts_with("damaged-0/") && name.ends_with(".log");
            if damage == Damage::Missing && is_first_log {
                continue; // A removed segment counts as intended.
            }
            let dir = tempfile::tempdir().expect("a temporary directory");
            copy(&data, &dir.path().join("data"));
            damage.apply(&dir.path().join("data").join(&file));
            let site = Site::at(dir.path(), &[]);
            let after = if is_clean { "a clean stop" } else { "kill -9" };
            run(&site, &file, &format!("{damage:?} of {name} after {after}"));
            tried += 1;
        }
    }
    println!("{tried} damages tried");
    assert!(tried > 30, "the files are there to be damaged");
}

#[test]
fn damaged_files_after_a_clean_stop() {
    let _alone = alone();
    let site = Site::new(&[]);
    let process = site.start();
    fill(&process);
    process.stop();
    every_damage(&site.dir, true);
}

#[test]
fn damaged_files_after_a_kill() {
    let _alone = alone();
    // Checkpoints are written often, so that there are some to damage.
    let site = Site::new(&["log.flush.offset.checkpoint.interval.ms=100"]);
    let process = site.start();
    fill(&process);
    process.kill();
    every_damage(&site.dir, false);
}
