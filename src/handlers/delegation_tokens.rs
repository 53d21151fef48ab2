//! The delegation token APIs (KIP-48). Kafka allows them on authenticated connections only, so on
//! a plaintext listener all are answered with DELEGATION_TOKEN_REQUEST_NOT_ALLOWED.

use std::ops::RangeInclusive;

use kafka_protocol::{
    messages::{
        ApiKey, CreateDelegationTokenRequest, CreateDelegationTokenResponse,
        DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
        ExpireDelegationTokenRequest, ExpireDelegationTokenResponse, RenewDelegationTokenRequest,
        RenewDelegationTokenResponse,
    },
    protocol::StrBytes,
};

use super::{Context, ErrorCode, Handler, Reply};

const REFUSED: ErrorCode = ErrorCode::DelegationTokenRequestNotAllowed;
/// The time in answers that have none.
const NO_TIMESTAMP: i64 = -1;

pub struct CreateDelegationToken;

impl Handler for CreateDelegationToken {
    const API: ApiKey = ApiKey::CreateDelegationToken;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    type Request = CreateDelegationTokenRequest;
    type Response = CreateDelegationTokenResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: CreateDelegationTokenRequest,
    ) -> Reply<CreateDelegationTokenResponse> {
        // The principal of every unauthenticated connection.
        let requester = (text("User"), text("ANONYMOUS"));
        let named = request.owner_principal_name.filter(|name| !name.is_empty());
        let (code, owner) = match (named, request.owner_principal_type) {
            (None, _) => (REFUSED, requester.clone()),
            (Some(name), Some(kind)) => (REFUSED, (kind, name)),
            // Kafka's handler fails at a name without a type.
            (Some(_), None) => (ErrorCode::UnknownServerError, requester.clone()),
        };
        let response = CreateDelegationTokenResponse::default()
            .with_error_code(code.code())
            .with_principal_type(owner.0)
            .with_principal_name(owner.1)
            .with_issue_timestamp_ms(NO_TIMESTAMP)
            .with_expiry_timestamp_ms(NO_TIMESTAMP)
            .with_max_timestamp_ms(NO_TIMESTAMP);
        Reply::Now(match cx.version {
            3.. => response
                .with_token_requester_principal_type(requester.0)
                .with_token_requester_principal_name(requester.1),
            _ => response,
        })
    }
}

pub struct RenewDelegationToken;

impl Handler for RenewDelegationToken {
    const API: ApiKey = ApiKey::RenewDelegationToken;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    type Request = RenewDelegationTokenRequest;
    type Response = RenewDelegationTokenResponse;

    async fn handle(
        _: &mut Context<'_>,
        _: RenewDelegationTokenRequest,
    ) -> Reply<RenewDelegationTokenResponse> {
        Reply::Now(
            RenewDelegationTokenResponse::default()
                .with_error_code(REFUSED.code())
                .with_expiry_timestamp_ms(NO_TIMESTAMP),
        )
    }
}

pub struct ExpireDelegationToken;

impl Handler for ExpireDelegationToken {
    const API: ApiKey = ApiKey::ExpireDelegationToken;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    type Request = ExpireDelegationTokenRequest;
    type Response = ExpireDelegationTokenResponse;

    async fn handle(
        _: &mut Context<'_>,
        _: ExpireDelegationTokenRequest,
    ) -> Reply<ExpireDelegationTokenResponse> {
        Reply::Now(
            ExpireDelegationTokenResponse::default()
                .with_error_code(REFUSED.code())
                .with_expiry_timestamp_ms(NO_TIMESTAMP),
        )
    }
}

pub struct DescribeDelegationToken;

impl Handler for DescribeDelegationToken {
    const API: ApiKey = ApiKey::DescribeDelegationToken;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    type Request = DescribeDelegationTokenRequest;
    type Response = DescribeDelegationTokenResponse;

    async fn handle(
        _: &mut Context<'_>,
        _: DescribeDelegationTokenRequest,
    ) -> Reply<DescribeDelegationTokenResponse> {
        Reply::Now(DescribeDelegationTokenResponse::default().with_error_code(REFUSED.code()))
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}
