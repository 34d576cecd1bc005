//! Why a rotation is refused or stops.

use unibus_keyfile::error::ErrorClass;

use crate::source::StoreUrl;

/// Why a rotation is refused or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// Something is not as it has to be. Nothing was changed.
    #[error("`{command}` is refused: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What is not as it has to be.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// There is no rotation to go on with, or to take back.
    #[error("no rotation is under way in `{store}`")]
    NothingToResume {
        /// The store.
        store: StoreUrl,
    },
}

impl RotateError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Refused { .. } => ErrorClass::Conflict,
            Self::NothingToResume { .. } => ErrorClass::NotFound,
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "UB-M021",
            Self::NothingToResume { .. } => "UB-M022",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::NothingToResume { .. } => {
                "look at `status`; `rotate epoch STORE` begins a rotation".to_owned()
            }
        }
    }
}
