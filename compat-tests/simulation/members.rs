//! Members of a classic group. They join, assign partitions, send heartbeats, commit offsets, and
//! sometimes leave. A member that gets a partition fetches its committed offset, which must not be
//! older than the last acknowledged commit of any member.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        HeartbeatRequest, LeaveGroupRequest, join_group_response::JoinGroupResponseMember,
        leave_group_request::MemberIdentity, sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use sordini::protocol::ErrorCode;
use tokio::time::sleep;

use crate::{
    client::Client,
    consume,
    history::Place,
    requests::{self, group_id},
};

const SESSION_MS: i32 = 1_500;
const REBALANCE_MS: i32 = 1_500;
const PROTOCOL: &str = "in-turn";

struct Member {
    client: Client,
    group: String,
    topic: (String, i32),
    id: StrBytes,
    generation: i32,
    /// The partitions in this member's assignment.
    owned: Vec<i32>,
}

/// Runs a member. `topic` is the name and the number of partitions to assign.
pub async fn run(client: Client, group: String, topic: (String, i32)) {
    let (id, owned) = (StrBytes::default(), Vec::new());
    let mut member = Member { client, group, topic, id, generation: -1, owned };
    loop {
        match member.join().await {
            Some(()) => member.work().await,
            None => member.client.rest().await,
        }
    }
}

impl Member {
    /// Handles the error code of a response (`None`: no response). Returns true if there is no
    /// error.
    fn is_good(&mut self, code: Option<i16>) -> bool {
        let code = code.unwrap_or(ErrorCode::RequestTimedOut.code());
        if code == 0 {
            return true;
        }
        self.client.history.lock().refused(code);
        match ErrorCode::try_from_code(code) {
            Some(ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) => {
                self.id = StrBytes::default();
            }
            Some(
                ErrorCode::RebalanceInProgress
                | ErrorCode::IllegalGeneration
                | ErrorCode::MemberIdRequired,
            ) => {}
            _ => self.client.forget_coordinator(),
        }
        false
    }

    /// Joins the group and syncs. `None` if the caller must retry.
    async fn join(&mut self) -> Option<()> {
        let request = requests::join_group(&self.group, PROTOCOL, b"")
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(self.id.clone());
        let coordinator = self.client.coordinator(&self.group).await;
        let joined = self.client.ask(&coordinator, 9, &request).await;
        let is_good = self.is_good(joined.as_ref().map(|it| it.error_code));
        let joined = joined?;
        if joined.error_code == ErrorCode::MemberIdRequired.code() {
            self.id = joined.member_id;
            return None;
        }
        if !is_good {
            return None;
        }
        self.id = joined.member_id;
        self.generation = joined.generation_id;
        let assignments = match joined.leader == self.id {
            true => share_out(&joined.members, self.topic.1),
            false => Vec::new(),
        };
        let member = (&self.id, self.generation);
        let request = requests::sync_group(&self.group, member, PROTOCOL, assignments);
        let synced = self.client.ask(&coordinator, 5, &request).await;
        if !self.is_good(synced.as_ref().map(|it| it.error_code)) {
            return None;
        }
        self.owned = synced?.assignment.iter().map(|partition| i32::from(*partition)).collect();
        self.claim();
        Some(())
    }

    /// Checks that no other member owns one of its partitions in this generation.
    fn claim(&mut self) {
        let mut history = self.client.history.lock();
        for partition in &self.owned {
            let key = (self.group.clone(), *partition, self.generation);
            let owner = history.owners.entry(key).or_insert_with(|| self.id.to_string());
            if *owner != *self.id {
                let (generation, other) = (self.generation, owner.clone());
                let wrong =
                    format!("{partition} is {other}'s in {generation}, not {}'s", &*self.id);
                history.wrong.push(wrong);
            }
        }
    }

    /// Commits and sends heartbeats until the group rebalances or the member leaves.
    async fn work(&mut self) {
        for partition in self.owned.clone() {
            let place = (self.topic.0.clone(), partition);
            let least = self.client.history.lock().commits(&self.group, &place).acknowledged;
            let found = consume::fetch_committed(&mut self.client, &self.group, &place).await;
            let Some(found) = found else { return self.client.forget_coordinator() };
            let most = self.client.history.lock().commits(&self.group, &place).drawn;
            if !(least..=most).contains(&found) {
                let wrong =
                    format!("{}: {found} is committed of {place:?}, not {least}", self.group);
                self.client.history.lock().wrong.push(wrong);
            }
        }
        loop {
            if self.client.rng.one_in(50) {
                return self.leave().await;
            }
            if !self.beat().await || !self.commit().await {
                return;
            }
            self.client.rest().await;
        }
    }

    async fn beat(&mut self) -> bool {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let coordinator = self.client.coordinator(&self.group).await;
        let answer = self.client.ask(&coordinator, 4, &request).await;
        let is_good = self.is_good(answer.map(|it| it.error_code));
        if is_good {
            self.client.history.lock().note_progress(&self.client.name);
        }
        is_good
    }

    async fn commit(&mut self) -> bool {
        for partition in self.owned.clone() {
            let place: Place = (self.topic.0.clone(), partition);
            let offset = self.client.history.lock().commits(&self.group, &place).draw();
            let topic = (self.topic.0.as_str(), partition);
            let request = requests::commit_offset(&self.group, topic, offset, "")
                .with_generation_id_or_member_epoch(self.generation)
                .with_member_id(self.id.clone());
            let coordinator = self.client.coordinator(&self.group).await;
            let answer = self.client.ask(&coordinator, 8, &request).await;
            let answer = answer.and_then(|mut it| it.topics.pop()?.partitions.pop());
            if !self.is_good(answer.map(|it| it.error_code)) {
                return false;
            }
            let mut history = self.client.history.lock();
            history.commits(&self.group, &place).acknowledge(offset);
            history.note_progress(&self.group);
        }
        true
    }

    async fn leave(&mut self) {
        let member = MemberIdentity::default().with_member_id(self.id.clone());
        let request = LeaveGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_members(vec![member]);
        let coordinator = self.client.coordinator(&self.group).await;
        let answer = self.client.ask(&coordinator, 4, &request).await;
        // If the request was lost, the coordinator removes the member after its session timeout.
        self.is_good(answer.map(|it| it.error_code));
        self.id = StrBytes::default();
        let pause = self.client.rng.between(10, 500);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Assigns the partitions to the members in turn (round robin).
fn share_out(
    members: &[JoinGroupResponseMember],
    partitions: i32,
) -> Vec<SyncGroupRequestAssignment> {
    let shares = members.iter().enumerate().map(|(at, member)| {
        let own = (0..partitions as u8).filter(|it| usize::from(*it) % members.len() == at);
        SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(Bytes::from_iter(own))
    });
    shares.collect()
}
