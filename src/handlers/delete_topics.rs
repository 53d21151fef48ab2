//! DeleteTopics, by name or by id (KIP-516).

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        ApiKey, DeleteTopicsRequest, DeleteTopicsResponse,
        delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{str_bytes, topic_name},
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    base::TopicId,
    controller::ControllerError,
    metadata::Image,
    protocol::checks::{CLUSTER_DELETE, TOPIC_DELETE, TOPIC_DESCRIBE},
};

pub struct DeleteTopics;

impl Handler for DeleteTopics {
    const API: ApiKey = ApiKey::DeleteTopics;
    type Request = DeleteTopicsRequest;
    type Response = DeleteTopicsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DeleteTopicsRequest,
    ) -> Reply<DeleteTopicsResponse> {
        if !cx.broker.settings().delete_topic_enable {
            let code = match cx.version {
                ..3 => ErrorCode::InvalidRequest,
                _ => ErrorCode::TopicDeletionDisabled,
            };
            return Reply::Now(refusal(&request, code.code(), None));
        }
        // Use the image of the quorum, because this broker may not have applied all topics yet.
        let may_delete_all = cx.allowed_on_cluster(CLUSTER_DELETE);
        let rights = |name: &str| match may_delete_all {
            true => Rights { describe: true, delete: true },
            false => Rights {
                describe: cx.allowed(TOPIC_DESCRIBE, name),
                delete: cx.allowed(TOPIC_DELETE, name),
            },
        };
        let (wanted, mut answers) = resolve(&request, &cx.broker.quorum.image(), rights);
        let ids: Vec<TopicId> = wanted.keys().copied().collect();
        let results = match cx.controller_within(request.timeout_ms).delete_topics(ids).await {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                committed.value
            }
            Err(error) => {
                let (code, why) = errors::outcome::<()>(&Err(error));
                let why = why.filter(|_| cx.version >= 5);
                return Reply::Now(refusal(&request, code, why));
            }
        };
        for (id, result) in results {
            let (code, message) = errors::outcome(&result);
            answers.push(answer(Some(&wanted[&id]), id, code, message));
        }
        let from_6 = cx.version >= 6;
        for answer in answers.iter_mut().filter(|_| !from_6) {
            answer.topic_id = TopicId::nil();
            if cx.version < 5 {
                answer.error_message = None;
            }
        }
        Reply::Now(DeleteTopicsResponse::default().with_responses(answers))
    }
}

error_codes!(DeleteTopicsResponse: |it| each!(it.responses));

fn answer(
    name: Option<&str>,
    id: TopicId,
    code: i16,
    message: Option<StrBytes>,
) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(name.map(topic_name))
        .with_topic_id(id)
        .with_error_code(code)
        .with_error_message(message)
}

fn invalid(name: Option<&str>, id: TopicId, why: &str) -> DeletableTopicResult {
    answer(name, id, ErrorCode::InvalidRequest.code(), Some(str_bytes(why)))
}

/// The same error for every topic of the request, whether the topic exists or not.
fn refusal(
    request: &DeleteTopicsRequest,
    code: i16,
    why: Option<StrBytes>,
) -> DeleteTopicsResponse {
    let named = request.topic_names.iter().map(|name| (Some(name.as_str()), TopicId::nil()));
    let states = request.topics.iter();
    let states = states.map(|it| (it.name.as_ref().map(|name| name.as_str()), it.topic_id));
    let refuse = |(name, id)| answer(name, id, code, why.clone());
    DeleteTopicsResponse::default().with_responses(named.chain(states).map(refuse).collect())
}

/// What the client may do with a topic.
struct Rights {
    describe: bool,
    delete: bool,
}

/// The response for a topic that the client may not delete.
fn denied(name: Option<&str>, id: TopicId) -> DeletableTopicResult {
    let (code, message) = errors::with_message(ErrorCode::TopicAuthorizationFailed);
    answer(name, id, code, message)
}

type Wanted = BTreeMap<TopicId, String>;

/// The topics to delete, and the error responses for invalid, unknown and repeated topics, and for
/// those that the client may not delete. Whether a topic exists, its name and its id are secret
/// unless the client may describe it.
fn resolve(
    request: &DeleteTopicsRequest,
    image: &Image,
    rights: impl Fn(&str) -> Rights,
) -> (Wanted, Vec<DeletableTopicResult>) {
    let mut answers = Vec::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ids: BTreeMap<TopicId, usize> = BTreeMap::new();
    for name in &request.topic_names {
        *names.entry(name).or_default() += 1;
    }
    for topic in &request.topics {
        match &topic.name {
            None if topic.topic_id.is_nil() => {
                let why = "Neither topic name nor id were specified.";
                answers.push(invalid(None, topic.topic_id, why));
            }
            None => *ids.entry(topic.topic_id).or_default() += 1,
            Some(name) if topic.topic_id.is_nil() => *names.entry(name).or_default() += 1,
            Some(name) => {
                let why = "You may not specify both topic name and topic id.";
                answers.push(invalid(Some(name), topic.topic_id, why));
            }
        }
    }
    let mut wanted = Wanted::new();
    for (&id, &count) in &ids {
        match image.topic_by_id(id) {
            _ if count > 1 => answers.push(invalid(None, id, "Duplicate topic id.")),
            Some(topic) => match rights(&topic.name) {
                Rights { delete: true, .. } => drop(wanted.insert(id, topic.name.to_string())),
                Rights { describe: true, .. } => answers.push(denied(Some(&topic.name), id)),
                _ => answers.push(denied(None, id)),
            },
            None => {
                let (code, why) = errors::outcome(&Err::<(), _>(ControllerError::UnknownTopicId));
                answers.push(answer(None, id, code, why));
            }
        }
    }
    for (name, count) in names {
        if count > 1 {
            answers.push(invalid(Some(name), TopicId::nil(), "Duplicate topic name."));
            continue;
        }
        let rights = rights(name);
        match image.topic(name) {
            _ if !rights.describe => answers.push(denied(Some(name), TopicId::nil())),
            None => {
                let code = ErrorCode::UnknownTopicOrPartition.code();
                let why = Some(str_bytes("This server does not host this topic-partition."));
                answers.push(answer(Some(name), TopicId::nil(), code, why));
            }
            Some(_) if !rights.delete => answers.push(denied(Some(name), TopicId::nil())),
            Some(topic) if ids.contains_key(&topic.id) => {
                wanted.remove(&topic.id);
                let why = "The provided topic name maps to an ID that was already supplied.";
                answers.push(invalid(Some(name), topic.id, why));
            }
            Some(topic) => drop(wanted.insert(topic.id, name.to_owned())),
        }
    }
    (wanted, answers)
}
