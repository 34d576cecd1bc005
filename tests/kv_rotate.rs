//! `rotate epoch` of a log of three nodes, by the tool, while users write and read: whatever is killed meanwhile.

mod kv_rotate {
    mod compromised;
    mod crash;
    mod fence;
    mod matrix;
    mod options;
    mod refusals;
    mod whole;
}
