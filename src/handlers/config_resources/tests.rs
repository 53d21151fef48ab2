//! Tests of the checks of config changes.

use super::*;
use crate::base::config::{Sources, load};

fn change(kind: ConfigResourceType, name: &str, ops: &[(i8, &str, Option<&str>)]) -> Change {
    let ops = ops.iter().map(|(kind, name, value)| Op {
        name: (*name).to_owned(),
        kind: *kind,
        value: value.map(str::to_owned),
    });
    Change { kind: kind.id(), name: name.to_owned(), ops: ops.collect() }
}

fn start() -> Config {
    let loaded = load(Sources::default());
    loaded.expect("the embedded defaults start").config
}

fn judge(keeps: Keeps, changes: &[Change]) -> Vec<Option<String>> {
    let config = start();
    let image = Image::default();
    let (node_id, config, image) = (1, &config, &image);
    let judge =
        Judge { node_id, is_handed_on: false, config, image, keeps, client: &Client::this_node() };
    let message =
        |refusal: ResourceError| format!("{:?}: {}", refusal.code, refusal.message.unwrap());
    judge.check_all(changes).into_iter().map(|checked| checked.err().map(message)).collect()
}

fn refusal(kind: ConfigResourceType, name: &str, op: (i8, &str, Option<&str>)) -> Option<String> {
    judge(Keeps::Others, &[change(kind, name, &[op])]).remove(0)
}

use ConfigResourceType as Kind;

#[test]
fn a_resource_and_a_key_are_named_once() {
    let twice = [change(Kind::Topic, "t", &[]), change(Kind::Topic, "t", &[])];
    let once = Some("InvalidRequest: Each resource must appear at most once.".to_owned());
    assert_eq!(judge(Keeps::Others, &twice), [once.clone(), once]);
    let set = (SET, "retention.ms", Some("1"));
    assert_eq!(
        judge(Keeps::Others, &[change(Kind::Topic, "t", &[set, set])]),
        [Some("InvalidRequest: Error due to duplicate config keys".to_owned())]
    );
    let nulls = [(SET, "a", None), (APPEND, "b", None), (DELETE, "c", None)];
    assert_eq!(
        judge(Keeps::Others, &[change(Kind::Topic, "t", &nulls)]),
        [Some("InvalidRequest: Null value not supported for : a, b".to_owned())]
    );
}

#[test]
fn broker_configs_are_judged_here_and_topics_by_the_controller() {
    for (name, op, expected) in [
        ("2", (SET, "num.io.threads", Some("9")), {
            Some("InvalidRequest: Unexpected broker id, expected 1, but received 2")
        }),
        ("x", (SET, "num.io.threads", Some("9")), {
            Some("InvalidRequest: Node id must be an integer, but it is: x")
        }),
        ("1", (SET, "num.io.threads", Some("9")), None),
        ("", (SET, "num.io.threads", Some("0")), {
            Some(
                "InvalidRequest: Invalid value 0 for configuration num.io.threads: Value must be \
                 at least 1",
            )
        }),
        ("", (APPEND, "log.cleanup.policy", Some("compact")), None),
        ("", (SUBTRACT, "log.cleanup.policy", Some("delete")), None),
        ("", (APPEND, "nope", Some("x")), Some("InvalidConfig: Unknown config name: nope")),
        ("1", (APPEND, "num.io.threads", Some("3")), {
            Some("InvalidConfig: Config value append is not allowed for config key: num.io.threads")
        }),
        ("", (7, "num.io.threads", Some("3")), {
            Some("InvalidRequest: Unknown operations type 7")
        }),
    ] {
        let refusal = refusal(Kind::Broker, name, op);
        assert_eq!(refusal.as_deref(), expected, "{name} {op:?}");
    }
    assert_eq!(refusal(Kind::Topic, "no such", (SET, "foo", Some("1"))), None);
    assert_eq!(
        refusal(Kind::ClientMetrics, "", (SET, "interval.ms", Some("1000"))).as_deref(),
        Some("InvalidRequest: Subscription name can't be empty")
    );
}

#[test]
fn log_levels_are_judged_here() {
    let api = "kafka.server.KafkaApis";
    for (broker, op, expected) in [
        ("1", (SET, api, Some("DEBUG")), None),
        ("+01", (SET, ROOT, Some("FATAL")), None),
        ("1", (DELETE, api, None), None),
        ("1", (SET, "no.such", Some("DEBUG")), {
            Some("InvalidConfig: Logger no.such does not exist!")
        }),
        ("1", (DELETE, "no.such", None), Some("InvalidConfig: Logger no.such does not exist!")),
        ("1", (SET, api, Some("debug")), {
            Some(
                "InvalidConfig: Cannot set the log level of kafka.server.KafkaApis to debug as it is \
                 not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, \
                 WARN",
            )
        }),
        ("1", (DELETE, ROOT, None), {
            Some("InvalidRequest: Removing the log level of the root logger is not allowed")
        }),
        ("1", (APPEND, ROOT, Some("DEBUG")), {
            Some("InvalidRequest: APPEND operation is not allowed for the BROKER_LOGGER resource")
        }),
        ("1", (SUBTRACT, "no.such", Some("DEBUG")), {
            Some("InvalidRequest: SUBTRACT operation is not allowed for the BROKER_LOGGER resource")
        }),
        ("2", (SET, api, Some("DEBUG")), {
            Some("InvalidRequest: Unexpected node id. Expected 1, but received 2")
        }),
        ("", (SET, api, Some("DEBUG")), {
            Some("InvalidRequest: Node id must be an integer, but it is: ")
        }),
    ] {
        let refusal = refusal(Kind::BrokerLogger, broker, op);
        assert_eq!(refusal.as_deref(), expected, "{broker} {op:?}");
    }
    let legacy = change(Kind::BrokerLogger, "1", &[]);
    assert_eq!(
        judge(Keeps::Nothing, &[legacy]),
        [Some("InvalidRequest: Unknown resource type 8".to_owned())]
    );
}

#[test]
fn eligible_leader_replicas_need_one_minimum_in_the_cluster() {
    let config = start();
    let mut image = Image::default();
    let features = [("eligible.leader.replicas.version".to_owned(), 1)];
    image.features = std::sync::Arc::new(features.into());
    let (node_id, config, image, keeps) = (1, &config, &image, Keeps::Others);
    let judge =
        Judge { node_id, is_handed_on: true, config, image, keeps, client: &Client::this_node() };
    let refusal = |name: &str, op| {
        let refused = judge.check_all(&[change(Kind::Broker, name, &[op])]).remove(0).err();
        refused.and_then(|refusal| refusal.message)
    };
    let set = (SET, "min.insync.replicas", Some("2"));
    assert_eq!(refusal("", set), None);
    assert_eq!(
        refusal("", (DELETE, "min.insync.replicas", None)).as_deref(),
        Some("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.")
    );
    assert_eq!(
        refusal("1", set).as_deref(),
        Some("Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
    );
}

#[test]
fn answers_keep_the_requests_order() {
    let refused = || Err(ResourceError::request("no"));
    let accepted = || Ok(Checked::Configs((resource(Kind::Topic, "t"), Vec::new())));
    let changed_here = || Ok(Checked::Levels(Vec::new()));
    let decided = [Ok(()), Err(ResourceError::config("bad"))];
    assert_eq!(
        outcomes(vec![refused(), accepted(), changed_here(), refused(), accepted()], decided),
        [refused_outcome(), Ok(()), Ok(()), refused_outcome(), Err(ResourceError::config("bad"))]
    );
}

fn refused_outcome() -> Result<(), ResourceError> {
    Err(ResourceError::request("no"))
}
