//! The SQLCipher backend on disk: opening, damage, rollback, creation, crashes.

#[cfg(test)]
mod sqlcipher {
    mod crash;
    mod creation;
    pub(crate) mod fixture;
    mod golden;
    mod insider;
    mod opening;
    mod rekey;
    mod rollback;
    mod rotation;
    mod tamper;
}
