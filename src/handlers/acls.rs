//! DescribeAcls, CreateAcls and DeleteAcls, as a cluster without an authorizer answers them.

use kafka_protocol::{
    messages::{
        ApiKey, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
        DescribeAclsRequest, DescribeAclsResponse, create_acls_response::AclCreationResult,
        delete_acls_response::DeleteAclsFilterResult,
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors,
};
use crate::protocol::checks::{CLUSTER_ALTER, CLUSTER_DESCRIBE, Check};

/// The code UNKNOWN of resource types, pattern types, operations and permission types. If a request
/// has this code, Kafka fails to parse the request and closes the connection.
const UNKNOWN: i8 = 0;
const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub struct DescribeAcls;

impl Handler for DescribeAcls {
    const API: ApiKey = ApiKey::DescribeAcls;
    type Request = DescribeAclsRequest;
    type Response = DescribeAclsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeAclsRequest,
    ) -> Reply<DescribeAclsResponse> {
        let filter = [
            request.resource_type_filter,
            request.pattern_type_filter,
            request.operation,
            request.permission_type,
        ];
        let (code, message) =
            error(cx, CLUSTER_DESCRIBE, "No Authorizer is configured on the broker");
        let refusal =
            DescribeAclsResponse::default().with_error_code(code).with_error_message(message);
        refuse([filter], refusal)
    }
}

error_codes!(DescribeAclsResponse: |it| [it.error_code]);

pub struct CreateAcls;

impl Handler for CreateAcls {
    const API: ApiKey = ApiKey::CreateAcls;
    type Request = CreateAclsRequest;
    type Response = CreateAclsResponse;

    async fn handle(cx: &mut Context<'_>, request: CreateAclsRequest) -> Reply<CreateAclsResponse> {
        let (code, message) = error(cx, CLUSTER_ALTER, NO_AUTHORIZER);
        let refused =
            AclCreationResult::default().with_error_code(code).with_error_message(message);
        let results = vec![refused; request.creations.len()];
        let codes = request.creations.iter().map(|it| {
            [it.resource_type, it.resource_pattern_type, it.operation, it.permission_type]
        });
        refuse(codes, CreateAclsResponse::default().with_results(results))
    }
}

error_codes!(CreateAclsResponse: |it| each!(it.results));

pub struct DeleteAcls;

impl Handler for DeleteAcls {
    const API: ApiKey = ApiKey::DeleteAcls;
    type Request = DeleteAclsRequest;
    type Response = DeleteAclsResponse;

    async fn handle(cx: &mut Context<'_>, request: DeleteAclsRequest) -> Reply<DeleteAclsResponse> {
        let (code, message) = error(cx, CLUSTER_ALTER, NO_AUTHORIZER);
        let refused =
            DeleteAclsFilterResult::default().with_error_code(code).with_error_message(message);
        let results = vec![refused; request.filters.len()];
        let codes = request.filters.iter().map(|it| {
            [it.resource_type_filter, it.pattern_type_filter, it.operation, it.permission_type]
        });
        refuse(codes, DeleteAclsResponse::default().with_filter_results(results))
    }
}

error_codes!(DeleteAclsResponse: |it| each!(it.filter_results));

/// Responds with `refusal`, or closes the connection if one of the codes is UNKNOWN.
fn refuse<R: Default>(codes: impl IntoIterator<Item = [i8; 4]>, refusal: R) -> Reply<R> {
    match codes.into_iter().flatten().any(|code| code == UNKNOWN) {
        true => Reply::Close(R::default()),
        false => Reply::Now(refusal),
    }
}

/// The error of every request: SECURITY_DISABLED with this message if the client passes the check.
fn error(cx: &Context<'_>, check: Check, message: &'static str) -> (i16, Option<StrBytes>) {
    match cx.check_on_cluster(check) {
        Ok(()) => (ErrorCode::SecurityDisabled.code(), Some(StrBytes::from_static_str(message))),
        Err(code) => errors::with_message(code),
    }
}
