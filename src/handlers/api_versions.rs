//! ApiVersions: the APIs and versions that this node serves on a listener, from the handler table.

use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
    protocol::StrBytes,
};

use super::{Context, ErrorCode, Handler, Reply, TABLE, error_counts::error_codes};
use crate::controller::{KRAFT_VERSION, SUPPORTED};

pub struct ApiVersions;

impl Handler for ApiVersions {
    const API: ApiKey = ApiKey::ApiVersions;
    type Request = ApiVersionsRequest;
    type Response = ApiVersionsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ApiVersionsRequest,
    ) -> Reply<ApiVersionsResponse> {
        if cx.version >= 3 {
            let name = &request.client_software_name;
            let version = &request.client_software_version;
            if !is_valid_software(name) || !is_valid_software(version) {
                let error = ErrorCode::InvalidRequest.code();
                return Reply::Now(ApiVersionsResponse::default().with_error_code(error));
            }
            cx.session.software = Some((name.to_string(), version.to_string()));
        }
        let response = response(cx.session.on_controller_listener);
        let response = match cx.version {
            3.. => {
                let image = cx.broker.metadata();
                let kraft = (KRAFT_VERSION, cx.broker.quorum.kraft_version());
                let levels = image.features.iter().map(|(name, level)| (name.as_str(), *level));
                with_features(response, levels.chain([kraft]), cx.version)
                    .with_finalized_features_epoch(image.offset)
            }
            _ => response,
        };
        Reply::Now(response)
    }
}

error_codes!(ApiVersionsResponse: |it| [it.error_code]);

/// Adds supported and finalized features (KIP-584). Clients that use versions before 4 fail at a
/// feature whose lowest level is 0, so their responses omit such features (KAFKA-17492). A feature
/// at level 0 is not finalized.
fn with_features<'a>(
    response: ApiVersionsResponse,
    levels: impl Iterator<Item = (&'a str, i16)>,
    version: i16,
) -> ApiVersionsResponse {
    let supported = SUPPORTED.iter().filter(|feature| version >= 4 || feature.min > 0);
    let supported = supported.map(|feature| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version(feature.min)
            .with_max_version(feature.max)
    });
    let finalized = levels.filter(|(_, level)| *level != 0).map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_string(name.to_owned()))
            .with_min_version_level(level)
            .with_max_version_level(level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features(finalized.collect())
}

/// The response with the APIs of a listener. The caller adds the features.
fn response(on_controller_listener: bool) -> ApiVersionsResponse {
    let rows = TABLE
        .iter()
        .map(|entry| entry.row)
        .filter(|row| row.scope.is_served(on_controller_listener));
    let rows = rows.map(|row| {
        ApiVersion::default()
            .with_api_key(row.key as i16)
            .with_min_version(row.advertised_min())
            .with_max_version(row.max)
    });
    ApiVersionsResponse::default().with_api_keys(rows.collect())
}

/// KIP-511's pattern: starts and ends with a letter or digit, `-` and `.` in between.
fn is_valid_software(text: &StrBytes) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}
