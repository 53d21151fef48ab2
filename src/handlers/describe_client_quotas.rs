//! DescribeClientQuotas (KIP-546): the quotas in the metadata that match a filter.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::{
    messages::{
        ApiKey, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response::{EntityData, EntryData, ValueData},
    },
    protocol::StrBytes,
};

use super::{Context, ErrorCode, Handler, Reply, error_counts::error_codes};
use crate::{metadata::QuotaEntity, protocol::checks::CLUSTER_DESCRIBE_CONFIGS};

/// The values of `match_type` in a component of the filter.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

pub struct DescribeClientQuotas;

impl Handler for DescribeClientQuotas {
    const API: ApiKey = ApiKey::DescribeClientQuotas;
    type Request = DescribeClientQuotasRequest;
    type Response = DescribeClientQuotasResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeClientQuotasRequest,
    ) -> Reply<DescribeClientQuotasResponse> {
        let response = DescribeClientQuotasResponse::default();
        if let Err(code) = cx.check_on_cluster(CLUSTER_DESCRIBE_CONFIGS) {
            let response = response.with_error_code(code.code()).with_error_message(None);
            return Reply::Now(response.with_entries(None));
        }
        let filter = match Filter::new(&request) {
            Ok(filter) => filter,
            Err((code, message)) => {
                return Reply::Now(
                    response
                        .with_error_code(code.code())
                        .with_error_message(Some(StrBytes::from_string(message)))
                        .with_entries(None),
                );
            }
        };
        let image = cx.broker.metadata();
        let matching = image.quotas.iter().filter(|(entity, _)| filter.matches(entity));
        let entries = matching.map(|(entity, values)| entry(entity, values)).collect();
        Reply::Now(
            response.with_error_message(Some(StrBytes::default())).with_entries(Some(entries)),
        )
    }
}

error_codes!(DescribeClientQuotasResponse: |it| [it.error_code]);

/// A valid filter for quota entities.
struct Filter<'a> {
    /// The types that an entity must have with this name. `None` is the default entity.
    exact: BTreeMap<&'a str, Option<&'a str>>,
    /// The types that an entity must have with any name.
    specified: BTreeSet<&'a str>,
    /// Whether an entity must not have other types.
    is_strict: bool,
}

impl<'a> Filter<'a> {
    fn new(request: &'a DescribeClientQuotasRequest) -> Result<Self, (ErrorCode, String)> {
        let invalid = |message: &str| (ErrorCode::InvalidRequest, message.to_owned());
        let mut filter =
            Self { exact: BTreeMap::new(), specified: BTreeSet::new(), is_strict: request.strict };
        for component in &request.components {
            let kind = component.entity_type.as_str();
            if kind.is_empty() {
                return Err(invalid("Invalid empty entity type."));
            }
            if filter.has(kind) {
                let message =
                    format!("Entity type {kind} cannot appear more than once in the filter.");
                return Err(invalid(&message));
            }
            if ![USER, CLIENT_ID, IP].contains(&kind) {
                let message = format!("Unsupported entity type {kind}");
                return Err((ErrorCode::UnsupportedVersion, message));
            }
            filter.add(component).map_err(|message| invalid(&message))?;
        }
        if filter.has(IP) && (filter.has(USER) || filter.has(CLIENT_ID)) {
            return Err(invalid(
                "Invalid entity filter component combination. IP filter component should not be \
                 used with user or clientId filter component.",
            ));
        }
        Ok(filter)
    }

    fn has(&self, kind: &str) -> bool {
        self.exact.contains_key(kind) || self.specified.contains(kind)
    }

    fn add(&mut self, component: &'a ComponentData) -> Result<(), String> {
        let kind = component.entity_type.as_str();
        let with_text =
            |kind: &str| format!("Request specified {kind}, but also specified a match string.");
        match (component.match_type, component._match.as_deref()) {
            (EXACT, None) => {
                return Err(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".into()
                );
            }
            (DEFAULT, Some(_)) => return Err(with_text("MATCH_TYPE_DEFAULT")),
            (SPECIFIED, Some(_)) => return Err(with_text("MATCH_TYPE_SPECIFIED")),
            (EXACT | DEFAULT, name) => {
                self.exact.insert(kind, name);
            }
            (SPECIFIED, None) => {
                self.specified.insert(kind);
            }
            (other, _) => return Err(format!("Unknown match type {other}")),
        }
        Ok(())
    }

    fn matches(&self, entity: &QuotaEntity) -> bool {
        if self.is_strict && entity.len() != self.exact.len() + self.specified.len() {
            return false;
        }
        let has = |kind: &str, name: Option<Option<&str>>| {
            entity.iter().any(|(known, value)| {
                known == kind && name.is_none_or(|name| name == value.as_deref())
            })
        };
        self.exact.iter().all(|(kind, name)| has(kind, Some(*name)))
            && self.specified.iter().all(|kind| has(kind, None))
    }
}

fn entry(entity: &QuotaEntity, values: &BTreeMap<String, f64>) -> EntryData {
    let wire = |text: &String| StrBytes::from_string(text.clone());
    let entity = entity.iter().map(|(kind, name)| {
        EntityData::default().with_entity_type(wire(kind)).with_entity_name(name.as_ref().map(wire))
    });
    let values = values
        .iter()
        .map(|(key, value)| ValueData::default().with_key(wire(key)).with_value(*value));
    EntryData::default().with_entity(entity.collect()).with_values(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(
        components: &[(&str, i8, Option<&str>)],
        strict: bool,
        entity: &[(&str, Option<&str>)],
    ) -> bool {
        let owned = |text: &str| StrBytes::from_string(text.to_owned());
        let components = components.iter().map(|(kind, match_type, name)| {
            ComponentData::default()
                .with_entity_type(owned(kind))
                .with_match_type(*match_type)
                .with_match(name.map(owned))
        });
        let request = DescribeClientQuotasRequest::default()
            .with_components(components.collect())
            .with_strict(strict);
        let entity =
            entity.iter().map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)));
        Filter::new(&request).expect("a valid filter").matches(&entity.collect())
    }

    #[test]
    fn filter_selects_entities_as_kafka_does() {
        let alice = [(USER, Some("alice"))];
        let default_user = [(USER, None)];
        let both = [(CLIENT_ID, Some("app")), (USER, Some("alice"))];
        assert!(matches(&[], false, &alice));
        assert!(!matches(&[], true, &alice));
        assert!(matches(&[(USER, EXACT, Some("alice"))], false, &both));
        assert!(!matches(&[(USER, EXACT, Some("alice"))], true, &both));
        assert!(!matches(&[(USER, EXACT, Some("bob"))], false, &alice));
        assert!(!matches(&[(USER, EXACT, Some("alice"))], false, &default_user));
        assert!(matches(&[(USER, DEFAULT, None)], true, &default_user));
        assert!(!matches(&[(USER, DEFAULT, None)], false, &alice));
        assert!(matches(&[(USER, SPECIFIED, None)], true, &alice));
        assert!(matches(&[(USER, SPECIFIED, None), (CLIENT_ID, EXACT, Some("app"))], true, &both));
        assert!(!matches(&[(IP, SPECIFIED, None)], false, &alice));
    }
}
