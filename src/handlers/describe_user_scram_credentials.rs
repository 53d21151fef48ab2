//! DescribeUserScramCredentials (KIP-554): the mechanisms and iterations of users in the metadata.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        ApiKey, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
        describe_user_scram_credentials_response::{
            CredentialInfo, DescribeUserScramCredentialsResult,
        },
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
};
use crate::{metadata::Image, protocol::checks::CLUSTER_DESCRIBE};

pub struct DescribeUserScramCredentials;

impl Handler for DescribeUserScramCredentials {
    const API: ApiKey = ApiKey::DescribeUserScramCredentials;
    type Request = DescribeUserScramCredentialsRequest;
    type Response = DescribeUserScramCredentialsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeUserScramCredentialsRequest,
    ) -> Reply<DescribeUserScramCredentialsResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_DESCRIBE) {
            let row = DescribeUserScramCredentialsResult::default()
                .with_error_code(code.code())
                .with_error_message(None);
            let rows = vec![row; request.users.map_or(0, |users| users.len())];
            return Reply::Now(
                DescribeUserScramCredentialsResponse::default()
                    .with_error_code(code.code())
                    .with_error_message(None)
                    .with_results(rows),
            );
        }
        let image = cx.broker.metadata();
        // How often the request names each user.
        let mut users: BTreeMap<&str, usize> = BTreeMap::new();
        match request.users.as_deref().unwrap_or_default() {
            [] => users.extend(image.scram.keys().map(|(user, _)| (user.as_str(), 1))),
            named => {
                for user in named {
                    *users.entry(user.name.as_str()).or_default() += 1;
                }
            }
        }
        let results = users.into_iter().map(|(user, count)| described(&image, user, count));
        Reply::Now(
            DescribeUserScramCredentialsResponse::default()
                .with_error_message(Some(StrBytes::default()))
                .with_results(results.collect()),
        )
    }
}

error_codes!(DescribeUserScramCredentialsResponse: |it| each!(it.results));

fn described(image: &Image, user: &str, count: usize) -> DescribeUserScramCredentialsResult {
    let result = DescribeUserScramCredentialsResult::default()
        .with_user(StrBytes::from_string(user.to_owned()));
    let refuse = |result: DescribeUserScramCredentialsResult, code: ErrorCode, message: &str| {
        let message = StrBytes::from_string(format!("{message}{user}"));
        result.with_error_code(code.code()).with_error_message(Some(message))
    };
    if count > 1 {
        let message =
            "Cannot describe SCRAM credentials for the same user twice in a single request: ";
        return refuse(result, ErrorCode::DuplicateResource, message);
    }
    let of_user = (user.to_owned(), i8::MIN)..=(user.to_owned(), i8::MAX);
    let credentials = image.scram.range(of_user).map(|(_, credential)| {
        CredentialInfo::default()
            .with_mechanism(credential.mechanism)
            .with_iterations(credential.iterations)
    });
    let credentials: Vec<_> = credentials.collect();
    if credentials.is_empty() {
        let message = "Attempt to describe a user credential that does not exist: ";
        return refuse(result, ErrorCode::ResourceNotFound, message);
    }
    result.with_credential_infos(credentials)
}
