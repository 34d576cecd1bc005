//! `/blobs`.
