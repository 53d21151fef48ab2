//! The delegation token APIs (KIP-48). Kafka allows them on authenticated connections only, so on
//! a plaintext listener all are answered with DELEGATION_TOKEN_REQUEST_NOT_ALLOWED.

use kafka_protocol::{
    messages::{
        ApiKey, CreateDelegationTokenRequest, CreateDelegationTokenResponse,
        DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
        ExpireDelegationTokenRequest, ExpireDelegationTokenResponse, RenewDelegationTokenRequest,
        RenewDelegationTokenResponse,
    },
    protocol::StrBytes,
};

use super::{Context, ErrorCode, Handler, Reply, error_counts::error_codes};

const REFUSED: ErrorCode = ErrorCode::DelegationTokenRequestNotAllowed;
/// The timestamp in responses without a token.
const NO_TIMESTAMP: i64 = -1;

pub struct CreateDelegationToken;

impl Handler for CreateDelegationToken {
    const API: ApiKey = ApiKey::CreateDelegationToken;
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
            // Kafka fails if the owner has a name but no type.
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

error_codes!(CreateDelegationTokenResponse: |it| [it.error_code]);

/// Defines handlers that send the same response to every request.
macro_rules! always {
    ($($name:ident, $request:ty => $response:ty: $answer:expr;)*) => {$(
        pub struct $name;

        impl Handler for $name {
            const API: ApiKey = ApiKey::$name;
            type Request = $request;
            type Response = $response;

            async fn handle(_: &mut Context<'_>, _: $request) -> Reply<$response> {
                Reply::Now($answer)
            }
        }

        error_codes!($response: |it| [it.error_code]);
    )*};
}

always! {
    RenewDelegationToken, RenewDelegationTokenRequest => RenewDelegationTokenResponse:
        RenewDelegationTokenResponse::default()
            .with_error_code(REFUSED.code())
            .with_expiry_timestamp_ms(NO_TIMESTAMP);
    ExpireDelegationToken, ExpireDelegationTokenRequest => ExpireDelegationTokenResponse:
        ExpireDelegationTokenResponse::default()
            .with_error_code(REFUSED.code())
            .with_expiry_timestamp_ms(NO_TIMESTAMP);
    DescribeDelegationToken, DescribeDelegationTokenRequest => DescribeDelegationTokenResponse:
        DescribeDelegationTokenResponse::default().with_error_code(REFUSED.code());
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}
