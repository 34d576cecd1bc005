//! One suite for every backend: the same rules, under the same names, one module a backend.
//!
//! A backend joins with one line at the foot, naming a function that opens an empty store under a given state
//! key, and how many random histories to hold against the model.

#[cfg(test)]
#[cfg(feature = "sealed-log")]
#[path = "nats/server.rs"]
mod server;

#[cfg(test)]
mod conformance {
    pub(crate) mod blobs;
    pub(crate) mod concurrent;
    pub(crate) mod fixture;
    pub(crate) mod members;
    pub(crate) mod model;
    pub(crate) mod nonces;
    pub(crate) mod property;
    pub(crate) mod rekeys;
    pub(crate) mod rooms;
    #[cfg(feature = "sealed-log")]
    pub(crate) mod sealed_log;
    #[cfg(feature = "sqlcipher")]
    pub(crate) mod sqlcipher;
    pub(crate) mod users;
    pub(crate) mod whole;
}

/// Hands every rule to `$to`, with `$open` before them.
macro_rules! every_rule {
    ($to:ident, $open:expr) => {
        $to! { $open;
        users:
            a_new_store_is_empty_and_verifies
            an_absent_user_reads_as_none
            an_added_user_reads_back_as_given
            adding_a_known_key_changes_nothing_and_raises_no_role
            adding_a_revoked_key_does_not_revive_it
            a_user_that_comes_revoked_is_refused
            users_are_listed_in_canonical_order_with_the_revoked
            revoking_is_a_status_and_keeps_the_record
            revoking_an_unknown_or_revoked_user_is_not_found
            only_an_active_admin_adds_and_revokes_users
            a_revoked_admin_loses_its_rights_at_once
            the_last_active_admin_cannot_be_revoked_over_the_bus
            the_operator_may_revoke_the_last_admin
            an_admin_may_revoke_itself_while_another_is_active
            only_active_users_are_authorized;
        rooms:
            a_room_comes_with_its_owner_and_the_owners_key
            a_room_without_encryption_has_no_sealed_keys
            creating_a_room_again_changes_nothing
            an_encrypted_room_without_a_sealed_key_is_refused
            a_member_of_an_encrypted_room_needs_a_kex_pub
            a_room_and_an_owner_that_do_not_fit_are_refused
            a_new_room_is_at_key_epoch_1
            an_active_user_creates_rooms_for_itself_only
            rooms_of_an_endpoint_come_with_its_role
            channels_are_those_of_an_active_users_rooms;
        members:
            an_owner_invites_a_member_with_its_key
            inviting_a_member_again_changes_nothing_and_raises_no_role
            only_an_owner_invites
            an_invited_owner_may_invite
            an_invitation_sealed_for_another_epoch_is_refused
            an_invitation_needs_a_key_exactly_if_the_room_is_encrypted
            a_revoked_user_is_not_invited
            a_stranger_is_not_told_whether_a_room_exists
            the_operator_is_told_that_a_room_is_not_there
            a_removed_member_loses_the_keys_of_all_epochs
            a_member_may_leave_and_remove_nobody_else
            removing_somebody_who_is_no_member_is_not_found
            the_last_owner_cannot_leave_others_behind
            the_last_member_closes_the_room
            another_owner_takes_over_the_room
            a_revoked_user_stays_a_member_and_can_do_nothing
            a_member_that_comes_back_gets_no_earlier_key
            rooms_whose_ids_share_a_beginning_do_not_mix;
        rekeys:
            a_rekey_makes_the_next_epoch_current
            keys_of_earlier_epochs_stay
            a_rekey_to_any_other_epoch_is_a_conflict
            a_rekey_that_misses_a_member_is_refused
            a_rekey_with_a_key_for_a_stranger_is_refused
            a_rekey_with_two_keys_for_one_member_is_refused
            only_an_owner_rekeys
            a_room_without_encryption_is_not_rekeyed;
        blobs:
            a_blob_is_recorded_once
            only_active_users_record_blobs
            an_absent_blob_reads_as_none;
        nonces:
            a_nonce_is_granted_once
            a_nonce_belongs_to_its_signer
            an_expired_nonce_may_be_claimed_again
            a_claim_that_has_expired_is_refused
            a_clock_set_back_does_not_revive_a_nonce
            a_granted_nonce_counts_as_a_write_and_leaves_the_digest
            an_imported_floor_refuses_what_was_signed_before;
        concurrent:
            of_two_rekeys_at_once_exactly_one_wins
            of_many_claims_of_a_nonce_exactly_one_is_granted
            of_many_adds_of_one_key_exactly_one_succeeds
            writes_at_once_are_all_counted
            a_revocation_and_a_write_of_the_revoked_do_not_overlap
            reads_see_all_of_a_write_or_nothing;
        whole:
            each_write_moves_the_sequence_and_no_refusal_does
            a_change_that_is_undone_brings_the_digest_back
            an_export_is_in_canonical_order_and_adds_up_to_the_digest
            an_export_is_of_one_moment_while_writes_go_on
            an_export_stops_when_told
            an_import_gives_equal_records_and_digest_in_another_lineage
            an_import_into_a_store_with_records_is_refused
            an_import_out_of_order_or_twice_is_refused
            an_import_of_a_damaged_record_names_its_place
            an_import_ends_with_the_error_of_its_source
            a_field_of_a_later_version_passes_through
            records_that_refer_to_nothing_are_counted
            a_write_is_seen_by_the_next_read;
        }
    };
}

/// Every rule as a test of its own.
macro_rules! rules {
    ($open:expr; $($group:ident: $($rule:ident)+;)+) => { $($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            crate::conformance::$group::$rule($open).await;
        }
    )+)+ };
}

/// Every rule in one test, one after the other: for a backend that is slow to set up.
#[cfg(feature = "sealed-log")]
macro_rules! rules_in_turn {
    ($open:expr; $($group:ident: $($rule:ident)+;)+) => { $($(
        println!(stringify!($rule));
        crate::conformance::$group::$rule($open).await;
    )+)+ };
}

/// A module `$backend` with every rule, and random histories.
macro_rules! conformance {
    ($backend:ident, $open:expr, $histories:expr) => {
        mod $backend {
            every_rule!(rules, $open);

            #[test]
            fn random_histories_agree_with_the_model() {
                crate::conformance::property::histories_agree($open, $histories);
            }
        }
    };
}

conformance!(memory, crate::conformance::fixture::open_memory, 256);
#[cfg(feature = "sqlcipher")]
conformance!(sqlcipher, crate::conformance::sqlcipher::open, 16);
#[cfg(feature = "sealed-log")]
conformance!(sealed_log, crate::conformance::sealed_log::open_on_one_node, 4);

#[cfg(feature = "sealed-log")]
mod sealed_log_on_three_nodes {
    use crate::conformance::sealed_log::{Clusters, open_on_three_nodes};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_rule_holds() {
        let _clusters = Clusters;
        every_rule!(rules_in_turn, open_on_three_nodes);
    }

    #[test]
    fn random_histories_agree_with_the_model() {
        let _clusters = Clusters;
        crate::conformance::property::histories_agree(open_on_three_nodes, 4);
    }
}
