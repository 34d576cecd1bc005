//! Reads the vectors of what nodes sign about themselves, and of receipts.

use data_encoding::HEXLOWER;
use unibus_keyfile::{
    acknowledgement::Acknowledgement, census::Census, error::ReceiptError, id::Epoch, nodeset::Nodeset,
    receipt::Receipt,
};

use super::{Outcome, Vector, folder, of_document, variant};

pub(crate) fn acknowledgement(v: &Vector) -> Outcome {
    let nodeset = Vector::read(&folder().join(v.field("nodeset")));
    let nodeset = Nodeset::decode(&nodeset.bytes, &v.pin()).unwrap();
    let found = Acknowledgement::decode(&v.bytes, &nodeset).map_err(|error| of_document(&error))?;
    v.must_be("node", found.node());
    v.must_be("lineage", found.lineage());
    v.must_be("keyring-version", found.keyring_version());
    v.must_be("keyring-hash", found.keyring_hash());
    let epochs: Vec<String> = found.epochs().iter().map(ToString::to_string).collect();
    v.must_be("epochs", epochs.join(" "));
    v.must_be("created", found.created().seconds());
    Ok(())
}

fn counts(counts: &[(Epoch, u64)]) -> String {
    let counts: Vec<String> = counts.iter().map(|(epoch, count)| format!("{epoch}:{count}")).collect();
    format!("[{}]", counts.join(" "))
}

pub(crate) fn census(v: &Vector) -> Outcome {
    let nodeset = Vector::read(&folder().join(v.field("nodeset")));
    let nodeset = Nodeset::decode(&nodeset.bytes, &v.pin()).unwrap();
    let found = Census::decode(&v.bytes, &nodeset).map_err(|error| of_document(&error))?;
    v.must_be("node", found.node());
    v.must_be("lineage", found.lineage());
    v.must_be("keyring-version", found.keyring_version());
    v.must_be("keyring-hash", found.keyring_hash());
    v.must_be("stream", found.stream());
    v.must_be("barrier", found.barrier());
    v.must_be("barrier-id", HEXLOWER.encode(found.barrier_id()));
    v.must_be("digest", HEXLOWER.encode(found.digest()));
    v.must_be("records", found.records());
    v.must_be("entries", counts(found.entries()));
    let disk = found.disk().map(|disk| format!("{} {} {}", disk.files, disk.bytes, counts(&disk.envelopes)));
    v.must_be("disk", disk.unwrap_or_else(|| "none".into()));
    v.must_be("created", found.created().seconds());
    Ok(())
}

fn of_receipt(error: &ReceiptError) -> String {
    match error {
        ReceiptError::Decode(source) => variant(source),
        ReceiptError::Document { source, .. } => format!("Document {}", of_document(source)),
        ReceiptError::Differs(field) => format!("Differs({field})"),
        other => variant(other),
    }
}

pub(crate) fn receipt(v: &Vector) -> Outcome {
    let receipt = Receipt::decode(&v.bytes).map_err(|error| of_receipt(&error))?;
    let report = receipt.verify(Some(&v.pin())).map_err(|error| of_receipt(&error))?;
    let numbers: Vec<String> = report.from.iter().map(ToString::to_string).collect();
    v.must_be("hash", receipt.hash());
    v.must_be("nodes", report.nodes.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "));
    v.must_be("from", numbers.join(" "));
    v.must_be("to", report.to);
    v.must_be("physical", report.physical);
    Ok(())
}
