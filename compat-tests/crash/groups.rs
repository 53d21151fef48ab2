//! Offsets and members of a group, which must survive kill -9.

use std::{fs, io, path::Path, thread, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeGroupsRequest, JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest, sync_group_request::SyncGroupRequestAssignment,
};

use super::{
    alone,
    kept::until,
    shared::{
        client::{Client, Code},
        process::Site,
        requests::{self, group_id, text},
    },
};

const GROUP: &str = "readers";
const INSTANCE: &str = "first";
const PROTOCOL: &str = "range";

/// The member of a classic group.
struct Member {
    id: String,
    generation: i32,
}

/// Joins the group as its only member, with a static id (`group.instance.id`), and syncs.
fn join(client: &mut Client) -> io::Result<Result<Member, Code>> {
    let request = requests::join_group(GROUP, PROTOCOL, b"m")
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_group_instance_id(Some(text(INSTANCE)));
    let joined = client.call::<JoinGroupRequest>(7, &request)?;
    if joined.error_code != 0 {
        return Ok(Err(joined.error_code));
    }
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"assigned"));
    let member = (&joined.member_id, joined.generation_id);
    let request = requests::sync_group(GROUP, member, PROTOCOL, vec![assignment])
        .with_group_instance_id(Some(text(INSTANCE)));
    let synced = client.call::<SyncGroupRequest>(5, &request)?;
    assert_eq!(synced.error_code, 0, "the only member is given its assignment");
    Ok(Ok(Member { id: joined.member_id.to_string(), generation: joined.generation_id }))
}

fn join_when_ready(client: &mut Client) -> Member {
    until("the group can be joined", || {
        assert_eq!(client.find_coordinator(GROUP).expect("answered"), 0);
        join(client).expect("answered").ok()
    })
}

fn commit(client: &mut Client, member: &Member, of: (&str, i32), offset: i64) -> io::Result<Code> {
    let request = requests::commit_offset(GROUP, of, offset, &format!("at {offset}"))
        .with_generation_id_or_member_epoch(member.generation)
        .with_member_id(text(&member.id))
        .with_group_instance_id(Some(text(INSTANCE)));
    let answer = client.call::<OffsetCommitRequest>(8, &request)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

/// Returns the committed offset and its metadata.
fn committed(client: &mut Client, of: (&str, i32)) -> io::Result<Result<(i64, String), Code>> {
    let request = requests::committed_offset(GROUP, of);
    let answer = client.call::<OffsetFetchRequest>(8, &request)?;
    let group = &answer.groups[0];
    if group.error_code != 0 {
        return Ok(Err(group.error_code));
    }
    let partition = &group.topics[0].partitions[0];
    let metadata = partition.metadata.as_ref().map(ToString::to_string);
    Ok(Ok((partition.committed_offset, metadata.unwrap_or_default())))
}

/// Returns the group's state, and the ids and assignments of its members.
fn describe(client: &mut Client) -> io::Result<(String, Vec<(String, Bytes)>)> {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(GROUP)]);
    let answer = client.call(5, &request)?;
    let described = &answer.groups[0];
    let members = described.members.iter();
    let members =
        members.map(|it| (it.member_id.to_string(), it.member_assignment.clone())).collect();
    Ok((described.group_state.to_string(), members))
}

#[test]
fn groups_survive_kills() {
    let _alone = alone();
    let site = Site::new(&["log.roll.ms=100", "offsets.topic.segment.bytes=1048576"]);
    let mut process = site.start();
    let mut client = process.client();
    assert_eq!(client.create_topic("read", 1, &[]).expect("answered"), 0);
    until("the offsets topic is made", || {
        (client.find_coordinator(GROUP).expect("answered") == 0).then_some(())
    });
    let member = join_when_ready(&mut client);
    for round in 1..=5 {
        for step in 0..20 {
            let offset = round * 100 + step;
            let code = commit(&mut client, &member, ("read", 0), offset);
            assert_eq!(code.expect("answered"), 0, "an offset is committed");
            if step % 10 == 0 {
                thread::sleep(Duration::from_millis(60));
            }
        }
        process.kill();
        process = site.start();
        client = process.client();
        let committed = until("the group is loaded", || {
            committed(&mut client, ("read", 0)).expect("answered").ok()
        });
        let last = round * 100 + 19;
        assert_eq!(committed, (last, format!("at {last}")), "the last commit is there");
        let (state, members) = describe(&mut client).expect("answered");
        assert_eq!(state, "Stable", "the group is what it was");
        assert_eq!(members, [(member.id.clone(), b"assigned".as_slice().into())]);
    }
    let offsets_dirs = fs::read_dir(site.log_dir()).expect("a log directory");
    let segments = offsets_dirs
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("__consumer_offsets-"))
        .map(|entry| count_segments(&entry.path()))
        .max();
    println!("__consumer_offsets has {segments:?} segments");
    process.stop();
}

fn count_segments(dir: &Path) -> usize {
    let names = fs::read_dir(dir).expect("a partition's directory");
    let is_log = |name: &str| name.ends_with(".log");
    names.filter_map(|it| it.ok()).filter(|it| is_log(&it.file_name().to_string_lossy())).count()
}
