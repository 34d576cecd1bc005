//! Every outcome that must have a vector.

/// What can be wrong with the container of every signed document.
const CONTAINER: &[&str] = &[
    "ok",
    "Truncated",
    "Magic",
    "Version",
    "TooLarge",
    "Trailing",
    "Field(body)",
    "NotCanonical",
    "Field(signature count)",
    "Field(signature)",
    "Signature",
    "Signer",
    "Cluster",
    "Field(cluster)",
    "Field(lineage)",
];

/// For each format, what a vector must be there for.
pub(crate) const WANTED: &[(&str, &[&str])] = &[
    ("nodeset", CONTAINER),
    (
        "nodeset",
        &[
            "Field(version)",
            "Field(previous)",
            "Field(nodes)",
            "Field(recovery)",
            "Field(node name)",
            "Field(node order)",
        ],
    ),
    ("nodeset", &["Field(signing key)", "Field(wrapping key)", "Field(recovery name)"]),
    ("keyring", CONTAINER),
    (
        "keyring",
        &[
            "Field(version)",
            "Field(previous)",
            "Field(epochs)",
            "Field(epoch)",
            "Field(epoch order)",
            "Field(epoch state)",
        ],
    ),
    ("keyring", &["Field(primary epoch)", "Field(commitment)", "Field(recipient)", "Field(nodeset hash)"]),
    ("keyring", &["Field(state commitment)", "OldNodeset", "OtherNodeset", "Recipients"]),
    ("keyring", &["NotARecipient", "Unauthentic", "Contents", "Commitment"]),
    (
        "keyring",
        &["Field(staged epoch)", "Field(retained)", "Field(retained epoch)", "Field(retained order)"],
    ),
    ("keyring", &["Field(retained recipient)", "Field(retained wrap)"]),
    ("census", CONTAINER),
    ("census", &["Field(keyring version)", "Field(keyring hash)", "Field(node name)", "Field(stream)"]),
    ("census", &["Field(barrier id)", "Field(digest)", "Field(entries)", "Field(envelopes)"]),
    ("census", &["Field(epoch)", "Field(epoch order)", "Field(count)"]),
    ("receipt", &["ok", "Magic", "Version", "NotCanonical", "Signature", "Signer", "Document Truncated"]),
    (
        "receipt",
        &["Field(JSON)", "Field(receipt)", "Field(signature)", "Field(key)", "Keyrings", "Missing", "Word"],
    ),
    ("receipt", &["Differs(cluster)", "Differs(records)", "Differs(retained)", "Differs(fenced)"]),
    ("acknowledgement", CONTAINER),
    (
        "acknowledgement",
        &[
            "Field(keyring version)",
            "Field(epochs)",
            "Field(epoch)",
            "Field(epoch order)",
            "Field(keyring hash)",
            "Field(node name)",
        ],
    ),
    ("request", &["ok", "Version", "Signature", "Signer", "Field(armour)", "Field(node name)"]),
    ("recovery", &["ok", "Version", "Field(checksum)", "Field(signature count)", "Field(wrapping key)"]),
    ("witness", &["ok", "Truncated", "Magic", "Version", "Trailing", "OtherKey", "Unauthentic"]),
    (
        "envelope",
        &["ok", "Truncated", "Magic", "Field(epoch)", "Field(sealed length)", "Epoch", "Unauthentic"],
    ),
    ("plaintext", &["ok", "Truncated", "TooLarge", "Field(operation)", "Field(tombstone)", "Field(padding)"]),
    ("node-key", &["ok", "Empty", "NotAKey", "Checksum", "Mixed", "TooMany", "Repeated", "Payload Version"]),
];
