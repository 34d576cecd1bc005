//! The SQLCipher backend on disk: opening, damage, rollback, creation, crashes.

mod sqlcipher {
    mod crash;
    mod creation;
    pub(crate) mod fixture;
    mod opening;
    mod rollback;
    mod tamper;
}
