//! DescribeConfigs: the configs of topics, brokers, loggers, groups and client metrics
//! subscriptions, with their sources (Kafka's `ConfigHelper`).

use kafka_protocol::{
    messages::{
        ApiKey, DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
    protocol::StrBytes,
};

use super::{
    Client, Context, ErrorCode, Handler, Reply,
    config_resources::{ResourceError, check_allowed, code_and_message, resource},
    error_counts::{each, error_codes},
};
use crate::{
    base::config::{
        Config,
        describe::{self, Entry, Synonym},
    },
    controller::topic_names,
    metadata::{ConfigResourceType, Image},
    protocol::checks::{CLUSTER_DESCRIBE_CONFIGS, GROUP_DESCRIBE_CONFIGS, TOPIC_DESCRIBE_CONFIGS},
    telemetry::Loggers,
};

pub struct DescribeConfigs;

impl Handler for DescribeConfigs {
    const API: ApiKey = ApiKey::DescribeConfigs;
    type Request = DescribeConfigsRequest;
    type Response = DescribeConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeConfigsRequest,
    ) -> Reply<DescribeConfigsResponse> {
        let describer = Describer {
            node_id: cx.broker.node.id,
            config: &cx.broker.config(),
            image: &cx.broker.metadata(),
            loggers: &cx.broker.loggers,
            client: &cx.session.client,
            version: cx.version,
        };
        Reply::Now(describer.answer(&request))
    }
}

error_codes!(DescribeConfigsResponse: |it| each!(it.results));

/// Kafka's default message for INVALID_REQUEST.
const MALFORMED: &str = "This most likely occurs because of a request being malformed by the \
                         client library or the message was sent to an incompatible broker. See \
                         the broker logs for more details.";

struct Describer<'a> {
    node_id: i32,
    config: &'a Config,
    image: &'a Image,
    loggers: &'a Loggers,
    client: &'a Client,
    version: i16,
}

impl Describer<'_> {
    fn answer(&self, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
        let is_unknown = |resource: &DescribeConfigsResource| {
            ConfigResourceType::from_id(resource.resource_type).is_none()
        };
        // As in Kafka, one unknown resource type fails the whole request.
        let refuses_all = request.resources.iter().any(is_unknown);
        let describe = |resource: &DescribeConfigsResource| match refuses_all {
            true => Err(ResourceError::request(MALFORMED)),
            false => self.describe(resource),
        };
        let described: Vec<_> = request.resources.iter().map(|it| (it, describe(it))).collect();
        let is_denied = |described: &Result<_, ResourceError>| {
            described.as_ref().is_err_and(ResourceError::is_denial)
        };
        let (denied, described): (Vec<_>, Vec<_>) =
            described.into_iter().partition(|(_, described)| is_denied(described));
        // As in Kafka, the denied resources come last.
        let results = described.into_iter().chain(denied);
        let results =
            results.map(|(resource, described)| self.result(request, resource, described));
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn result(
        &self,
        request: &DescribeConfigsRequest,
        resource: &DescribeConfigsResource,
        described: Result<Vec<Entry>, ResourceError>,
    ) -> DescribeConfigsResult {
        let (entries, outcome) = match described {
            Ok(entries) => (entries, Ok(())),
            Err(refusal) => (Vec::new(), Err(refusal)),
        };
        let (code, message) = code_and_message(outcome);
        // Kafka sends an empty message here, not null.
        let message = message.unwrap_or_default();
        let is_asked_for = |entry: &Entry| match resource.configuration_keys.as_deref() {
            None | Some([]) => true,
            Some(names) => names.iter().any(|name| **name == *entry.name),
        };
        let entries = entries.into_iter().filter(is_asked_for);
        DescribeConfigsResult::default()
            .with_error_code(code)
            .with_error_message(Some(message))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_configs(entries.map(|entry| self.entry(request, entry)).collect())
    }

    fn entry(
        &self,
        request: &DescribeConfigsRequest,
        entry: Entry,
    ) -> DescribeConfigsResourceResult {
        let config_type = entry.type_id();
        let synonyms = if request.include_synonyms { entry.synonyms } else { Vec::new() };
        let result = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_string(entry.name))
            .with_value(entry.value.map(StrBytes::from_string))
            .with_read_only(entry.read_only)
            .with_config_source(entry.source as i8)
            .with_is_sensitive(entry.is_sensitive)
            .with_synonyms(synonyms.into_iter().map(synonym).collect());
        if self.version < 3 {
            return result;
        }
        let documentation = entry.documentation.filter(|_| request.include_documentation);
        result
            .with_config_type(config_type)
            .with_documentation(documentation.map(StrBytes::from_static_str))
    }

    fn describe(&self, asked: &DescribeConfigsResource) -> Result<Vec<Entry>, ResourceError> {
        let name = &*asked.resource_name;
        let Some(kind) = ConfigResourceType::from_id(asked.resource_type) else {
            return Err(ResourceError::request(MALFORMED));
        };
        let checks = [CLUSTER_DESCRIBE_CONFIGS, TOPIC_DESCRIBE_CONFIGS, GROUP_DESCRIBE_CONFIGS];
        check_allowed(self.client, kind, name, checks)?;
        let overrides = self.image.config(&resource(kind, name));
        match kind {
            ConfigResourceType::Topic => {
                topic_names::validate(name)?;
                if self.image.topic(name).is_none() {
                    let code = ErrorCode::UnknownTopicOrPartition;
                    return Err(ResourceError { code, message: None });
                }
                Ok(describe::topic(self.config, overrides)?)
            }
            ConfigResourceType::Broker if name.is_empty() => {
                Ok(describe::cluster_default(self.config))
            }
            ConfigResourceType::Broker => {
                self.check_broker_id(name, " or empty string,")?;
                Ok(describe::broker(self.config))
            }
            ConfigResourceType::BrokerLogger if name.is_empty() => {
                Err(ResourceError::request("Broker id must not be empty"))
            }
            ConfigResourceType::BrokerLogger => {
                self.check_broker_id(name, "")?;
                let levels = self.loggers.all();
                Ok(describe::loggers(levels.iter().map(|(logger, level)| (*logger, level.name()))))
            }
            ConfigResourceType::ClientMetrics if name.is_empty() => {
                Err(ResourceError::request("Client metrics subscription name must not be empty"))
            }
            ConfigResourceType::ClientMetrics => Ok(describe::client_metrics(overrides)?),
            ConfigResourceType::Group if name.is_empty() => {
                Err(ResourceError::request("Group name must not be empty"))
            }
            ConfigResourceType::Group => Ok(describe::group(self.config, overrides)?),
        }
    }

    fn check_broker_id(&self, name: &str, or: &str) -> Result<(), ResourceError> {
        match name.parse::<i32>() {
            Ok(id) if id == self.node_id => Ok(()),
            Ok(_) => Err(ResourceError::request(format!(
                "Unexpected broker id, expected {}{or} but received {name}",
                self.node_id
            ))),
            Err(_) => Err(ResourceError::request(format!(
                "Broker id must be an integer, but it is: {name}"
            ))),
        }
    }
}

fn synonym(synonym: Synonym) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_string(synonym.name))
        .with_value(synonym.value.map(StrBytes::from_string))
        .with_source(synonym.source as i8)
}
