//! ApiVersions: what this broker serves, read off the handler table.

use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion,
    },
    protocol::StrBytes,
};

use super::{Context, Entry, ErrorCode, Handler, Reply, TABLE};

pub struct ApiVersions;

impl Handler for ApiVersions {
    const API: ApiKey = ApiKey::ApiVersions;
    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=4;
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
        Reply::Now(response())
    }
}

/// The table as an answer; `error_code` and the features are the caller's to add.
pub fn response() -> ApiVersionsResponse {
    let rows = TABLE.iter().map(Entry::row).map(|row| {
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
