//! Fields of a receipt (SPEC keyfile, section 14).

use data_encoding::{BASE64, HEXLOWER};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Backend, Contents, FORMAT, MAX_STEPS, MAX_TEXT, OPERATION, ReceiptDraft, Step, json::Fields, json::Json,
};
use crate::{
    error::DecodeError,
    id::{DocumentHash, Epoch, NodeName, UnixTime},
    keyring::MAX_EPOCHS,
    nodeset::MAX_NODES,
};

/// Start of every format's name; the version follows.
const FORMAT_PREFIX: &str = "unibus-receipt-";

pub(super) fn json_of(contents: &Contents) -> Json {
    let draft = &contents.draft;
    let text = |value: &dyn ToString| Json::Text(value.to_string());
    let documents = |list: &[Vec<u8>]| Json::texts(list.iter().map(|bytes| BASE64.encode(bytes)));
    let step = |step: &Step| {
        let milliseconds = ("milliseconds", Json::Number(step.milliseconds));
        Json::object([milliseconds, ("name", text(&step.name))])
    };
    Json::object([
        ("backend", text(&draft.backend.name())),
        ("cluster", text(&contents.cluster)),
        (
            "counts",
            Json::object([
                ("entries", Json::Number(draft.entries)),
                ("records", Json::Number(draft.records)),
            ]),
        ),
        (
            "documents",
            Json::object([
                ("acknowledgements", documents(&draft.acknowledgements)),
                ("censuses", documents(&draft.censuses)),
                ("forgotten", documents(&draft.forgotten)),
                ("keyrings", documents(&draft.keyrings)),
                ("nodeset", Json::Text(BASE64.encode(&contents.nodeset))),
            ]),
        ),
        ("fenced", Json::texts(draft.fenced.iter().map(ToString::to_string))),
        ("finished", text(&draft.finished)),
        ("format", text(&FORMAT)),
        ("from", Json::List(draft.from.iter().map(|epoch| Json::Number(epoch.get().into())).collect())),
        ("lineage", text(&draft.lineage)),
        ("operation", text(&OPERATION)),
        ("plan", Json::Text(HEXLOWER.encode(&draft.plan))),
        ("previous", draft.previous.map_or(Json::Null, |hash| text(&hash))),
        ("retained", Json::Bool(draft.retained)),
        ("started", text(&draft.started)),
        ("steps", Json::List(draft.steps.iter().map(step).collect())),
        ("to", Json::Number(draft.to.get().into())),
        ("tool_version", text(&draft.tool_version)),
    ])
}

pub(super) fn contents_of(receipt: Json) -> Result<Contents, DecodeError> {
    let mut fields = Fields::of(receipt, "receipt")?;
    let format = fields.text("format")?;
    if format != FORMAT {
        let version = format.strip_prefix(FORMAT_PREFIX).and_then(|version| version.parse().ok());
        let magic = DecodeError::Magic { expected: "receipt" };
        return Err(version.map_or(magic, |found| DecodeError::Version { found }));
    }
    if fields.text("operation")? != OPERATION {
        return Err(DecodeError::Field("operation"));
    }
    let backend = Backend::of(&fields.text("backend")?).ok_or(DecodeError::Field("backend"))?;
    let tool_version = label(fields.text("tool_version")?, "tool_version")?;
    let plan = hash(&fields.text("plan")?, "plan")?;
    let cluster = fields.text("cluster")?;
    let cluster = same(cluster.parse().ok(), &cluster, "cluster")?;
    let lineage = fields.text("lineage")?;
    let lineage = same(lineage.parse().ok(), &lineage, "lineage")?;
    let from = epochs(fields.list("from")?)?;
    let to = epoch(&Json::Number(fields.number("to")?), "to")?;
    let started = time(&fields.text("started")?, "started")?;
    let finished = time(&fields.text("finished")?, "finished")?;
    let steps = steps(fields.list("steps")?)?;
    let mut counts = fields.object("counts")?;
    let (records, entries) = (counts.number("records")?, counts.number("entries")?);
    counts.end()?;
    let retained = fields.bool("retained")?;
    let fenced = names(fields.list("fenced")?)?;
    let previous = fields.optional_text("previous")?;
    let previous = previous.map(|text| hash(&text, "previous").map(DocumentHash::from_bytes)).transpose()?;
    let mut inside = fields.object("documents")?;
    let nodeset = document(&Json::Text(inside.text("nodeset")?), "nodeset")?;
    let keyrings = documents(inside.list("keyrings")?, "keyrings", usize::MAX)?;
    let acknowledgements = documents(inside.list("acknowledgements")?, "acknowledgements", MAX_NODES)?;
    let censuses = documents(inside.list("censuses")?, "censuses", MAX_NODES)?;
    let forgotten = documents(inside.list("forgotten")?, "forgotten", MAX_NODES)?;
    inside.end()?;
    fields.end()?;
    let draft = ReceiptDraft {
        backend,
        tool_version,
        plan,
        lineage,
        from,
        to,
        started,
        finished,
        steps,
        records,
        entries,
        retained,
        fenced,
        previous,
        keyrings,
        acknowledgements,
        censuses,
        forgotten,
    };
    Ok(Contents { cluster, nodeset, draft })
}

/// A value whose text is the one that it prints as.
fn same<T: ToString>(value: Option<T>, text: &str, field: &'static str) -> Result<T, DecodeError> {
    value.filter(|value| value.to_string() == *text).ok_or(DecodeError::Field(field))
}

/// Printable ASCII, for people.
fn label(text: String, field: &'static str) -> Result<String, DecodeError> {
    let fits = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(fits) {
        return Err(DecodeError::Field(field));
    }
    Ok(text)
}

fn hash(text: &str, field: &'static str) -> Result<[u8; 32], DecodeError> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| DecodeError::Field(field))?;
    bytes.try_into().map_err(|_| DecodeError::Field(field))
}

fn time(text: &str, field: &'static str) -> Result<UnixTime, DecodeError> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    let seconds = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
    same(seconds.map(UnixTime::from_seconds), text, field)
}

fn epoch(json: &Json, field: &'static str) -> Result<Epoch, DecodeError> {
    let Json::Number(number) = json else { return Err(DecodeError::Field(field)) };
    u32::try_from(*number).ok().and_then(Epoch::from_stored).ok_or(DecodeError::Field(field))
}

/// One at least, ascending.
fn epochs(list: Vec<Json>) -> Result<Vec<Epoch>, DecodeError> {
    if list.is_empty() || list.len() > MAX_EPOCHS {
        return Err(DecodeError::Field("from"));
    }
    let epochs: Vec<Epoch> = list.iter().map(|json| epoch(json, "from")).collect::<Result<_, _>>()?;
    ascending(epochs, "from")
}

fn ascending<T: PartialOrd>(list: Vec<T>, field: &'static str) -> Result<Vec<T>, DecodeError> {
    if list.is_sorted_by(|a, b| a < b) { Ok(list) } else { Err(DecodeError::Field(field)) }
}

fn names(list: Vec<Json>) -> Result<Vec<NodeName>, DecodeError> {
    if list.len() > MAX_NODES {
        return Err(DecodeError::Field("fenced"));
    }
    let name = |json| match json {
        Json::Text(text) => text.parse().map_err(|_| DecodeError::Field("fenced")),
        _ => Err(DecodeError::Field("fenced")),
    };
    ascending(list.into_iter().map(name).collect::<Result<_, _>>()?, "fenced")
}

fn steps(list: Vec<Json>) -> Result<Vec<Step>, DecodeError> {
    if list.len() > MAX_STEPS {
        return Err(DecodeError::Field("steps"));
    }
    let step = |json| {
        let mut fields = Fields::of(json, "steps")?;
        let step =
            Step { name: label(fields.text("name")?, "name")?, milliseconds: fields.number("milliseconds")? };
        fields.end().map(|()| step)
    };
    list.into_iter().map(step).collect()
}

fn documents(list: Vec<Json>, field: &'static str, limit: usize) -> Result<Vec<Vec<u8>>, DecodeError> {
    if list.is_empty() || list.len() > limit {
        return Err(DecodeError::Field(field));
    }
    list.iter().map(|json| document(json, field)).collect()
}

fn document(json: &Json, field: &'static str) -> Result<Vec<u8>, DecodeError> {
    let Json::Text(text) = json else { return Err(DecodeError::Field(field)) };
    BASE64.decode(text.as_bytes()).map_err(|_| DecodeError::Field(field))
}
