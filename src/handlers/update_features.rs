//! UpdateFeatures (KIP-584): changes the finalized levels of features.

use kafka_protocol::messages::{
    ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse,
    update_features_request::FeatureUpdateKey, update_features_response::UpdatableFeatureResult,
};

use super::{
    Context, Handler, Reply,
    conversions::str_bytes,
    error_counts::{each, error_codes},
    errors,
    raft_voters::COMMIT_WITHIN,
};
use crate::{
    controller::{ControllerError, FeatureUpdate, KRAFT_VERSION, UpgradeType},
    protocol::checks::CLUSTER_ALTER,
    quorum::VoterChangeError,
};

pub struct UpdateFeatures;

impl Handler for UpdateFeatures {
    const API: ApiKey = ApiKey::UpdateFeatures;
    type Request = UpdateFeaturesRequest;
    type Response = UpdateFeaturesResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: UpdateFeaturesRequest,
    ) -> Reply<UpdateFeaturesResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            let (code, message) = errors::with_message(code);
            let response = UpdateFeaturesResponse::default().with_error_code(code);
            return Reply::Now(response.with_error_message(message));
        }
        let version = cx.version;
        let updates: Vec<_> =
            request.feature_updates.iter().map(|it| update(it, version)).collect();
        let raises_kraft = updates.iter().any(|it| it.name == KRAFT_VERSION && it.level > 0);
        let validate_only = version >= 1 && request.validate_only;
        let (controller, quorum) = (cx.controller(), &cx.broker.quorum);
        let kraft = quorum.kraft_version();
        let mut result = match controller.update_features(updates, kraft, validate_only).await {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                committed.value
            }
            Err(error) => Err(error),
        };
        if result.is_ok() && raises_kraft && !validate_only {
            let upgraded = quorum.upgrade_kraft_version(COMMIT_WITHIN).await;
            result = upgraded.map_err(|why| match why {
                VoterChangeError::NotLeader => ControllerError::not_controller(quorum.leader()),
                why => ControllerError::InvalidUpdateVersion(format!(
                    "Invalid update version 1 for feature {KRAFT_VERSION}. {why}"
                )),
            });
        }
        let (code, message) = errors::outcome(&result);
        let message = message.map(|why| {
            str_bytes(&format!(
                "The update failed for all features since the following feature had an error: {why}"
            ))
        });
        let response =
            UpdateFeaturesResponse::default().with_error_code(code).with_error_message(message);
        if version > 1 || result.is_err() {
            return Reply::Now(response);
        }
        // As in Kafka, the message of each feature is "NONE".
        let row = |update: &FeatureUpdateKey| {
            UpdatableFeatureResult::default()
                .with_feature(update.feature.clone())
                .with_error_message(Some(str_bytes("NONE")))
        };
        Reply::Now(response.with_results(request.feature_updates.iter().map(row).collect()))
    }
}

error_codes!(UpdateFeaturesResponse: |it| each!(it.results).chain([it.error_code]));

fn update(update: &FeatureUpdateKey, version: i16) -> FeatureUpdate {
    let upgrade = match (version, update.allow_downgrade) {
        (0, true) => UpgradeType::SafeDowngrade,
        (0, false) => UpgradeType::Upgrade,
        _ => UpgradeType::from_id(update.upgrade_type),
    };
    let level = update.max_version_level;
    FeatureUpdate { name: update.feature.to_string(), level, upgrade }
}
