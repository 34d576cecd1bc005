//! Request signatures: the structure of RFC 9421, and each thing that is refused.

use unibus_membership_api::signature::{
    BaseError, Component, ParseError, Request, SignError, SignatureInput, SignatureParameters, sign,
};

const NONCE: &str = "abcdefghijklmnopqrstuv";
const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";

fn signature_of(label: &str) -> String {
    format!("{label}=:{}:", data_encoding::BASE64.encode(&[9; 64]))
}

fn input_with(components: &str, parameters: &str) -> Result<SignatureInput, ParseError> {
    SignatureInput::parse(&format!("sig1=({components}){parameters}"), &signature_of("sig1"))
}

fn parameters() -> String {
    format!(";created=1618884473;nonce=\"{NONCE}\";keyid=\"{KEY}\";alg=\"ed25519\"")
}

const REQUIRED: &str = "\"@method\" \"@path\" \"@query\"";

#[test]
fn signature_base_has_the_form_of_rfc_9421() {
    // The request of RFC 9421, appendix B.2, and section 2.5 for the layout of the base.
    let digest =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    let request = Request {
        method: "POST",
        path: "/foo",
        query: Some("param=Value&Pet=dog"),
        authority: Some("Example.COM"),
        content_digest: Some(digest),
        content_type: Some("application/json"),
    };
    let components = "\"@method\" \"@path\" \"@query\" \"@authority\" \"content-digest\" \"content-type\"";
    let input = input_with(components, &parameters()).unwrap();
    let expected = format!(
        "\"@method\": POST\n\"@path\": /foo\n\"@query\": ?param=Value&Pet=dog\n\"@authority\": example.com\n\
         \"content-digest\": {digest}\n\"content-type\": application/json\n\
         \"@signature-params\": ({components}){}",
        parameters()
    );
    assert_eq!(input.base(&request).unwrap(), expected);
}

#[test]
fn components_and_parameters_keep_the_order_of_the_signer() {
    let parameters = format!(";alg=\"ed25519\";keyid=\"{KEY}\";nonce=\"{NONCE}\";created=5");
    let input = input_with("\"@query\" \"@path\" \"@method\"", &parameters).unwrap();
    let base = input.base(&Request { method: "GET", path: "/x", ..Request::default() }).unwrap();
    assert_eq!(
        base,
        format!(
            "\"@query\": ?\n\"@path\": /x\n\"@method\": GET\n\
             \"@signature-params\": (\"@query\" \"@path\" \"@method\"){parameters}"
        )
    );
}

#[test]
fn empty_path_and_absent_query_have_the_values_of_rfc_9421() {
    let input = input_with(REQUIRED, &parameters()).unwrap();
    let base = input.base(&Request { method: "GET", ..Request::default() }).unwrap();
    assert!(base.starts_with("\"@method\": GET\n\"@path\": /\n\"@query\": ?\n"));
    let empty = input.base(&Request { method: "GET", query: Some(""), ..Request::default() }).unwrap();
    assert_eq!(base, empty);
}

#[test]
fn default_port_does_not_change_the_authority() {
    let input = input_with("\"@method\" \"@path\" \"@query\" \"@authority\"", &parameters()).unwrap();
    let base =
        |host| input.base(&Request { method: "GET", authority: Some(host), ..Request::default() }).unwrap();
    assert_eq!(base("node:80"), base("NODE"));
    assert_ne!(base("node:8470"), base("node"));
}

#[test]
fn value_with_a_line_break_cannot_pass_for_two_components() {
    let input = input_with(REQUIRED, &parameters()).unwrap();
    let request = Request { method: "GET", path: "/a\n\"@query\": ?b", ..Request::default() };
    assert_eq!(input.base(&request), Err(BaseError::Characters(Component::Path)));
}

#[test]
fn covered_header_that_is_absent_gives_no_base() {
    for (name, component) in [
        ("content-digest", Component::ContentDigest),
        ("content-type", Component::ContentType),
        ("@authority", Component::Authority),
    ] {
        let input = input_with(&format!("{REQUIRED} \"{name}\""), &parameters()).unwrap();
        assert!(input.covers(component));
        let request = Request { method: "GET", path: "/", ..Request::default() };
        assert_eq!(input.base(&request), Err(BaseError::Absent(component)));
    }
}

#[test]
fn signed_headers_are_read_back() {
    let request = Request {
        method: "POST",
        path: "/rooms",
        query: Some("a=b"),
        authority: Some("node:8470"),
        content_digest: Some("sha-256=:AAAA:"),
        content_type: Some("application/json"),
    };
    let mut seen = Vec::new();
    let parameters = SignatureParameters { created: 1_700_000_000, nonce: NONCE, key_id: [1; 32] };
    let headers = sign(&request, &parameters, |base| {
        seen = base.to_vec();
        Ok::<_, std::convert::Infallible>([9; 64])
    })
    .unwrap();
    let input = SignatureInput::parse(&headers.signature_input, &headers.signature).unwrap();
    assert_eq!(input.base(&request).unwrap().as_bytes(), seen);
    assert_eq!(input.created(), 1_700_000_000);
    assert_eq!(input.nonce(), NONCE);
    assert_eq!(input.key_id(), &[1; 32]);
    assert_eq!(input.signature(), &[9; 64]);
}

#[test]
fn signer_that_fails_and_values_out_of_bounds_are_errors() {
    let request = Request { method: "GET", path: "/", ..Request::default() };
    let good = SignatureParameters { created: 1, nonce: NONCE, key_id: [1; 32] };
    let failed = sign(&request, &good, |_| Err(std::fmt::Error));
    assert!(matches!(failed, Err(SignError::Signer(_))));
    for nonce in ["", "not allowed here ", &"a".repeat(65)] {
        let refused =
            sign(&request, &SignatureParameters { nonce, ..good }, |_| Ok::<_, std::fmt::Error>([0; 64]));
        assert!(matches!(refused, Err(SignError::Parameter { parameter: "nonce" })));
    }
    let late = SignatureParameters { created: i64::MAX, ..good };
    let refused = sign(&request, &late, |_| Ok::<_, std::fmt::Error>([0; 64]));
    assert!(matches!(refused, Err(SignError::Parameter { parameter: "created" })));
}

#[test]
fn window_is_sixty_seconds_in_both_directions() {
    let at = |created: &str| {
        let parameters = format!(";created={created};nonce=\"{NONCE}\";keyid=\"{KEY}\";alg=\"ed25519\"");
        input_with(REQUIRED, &parameters).unwrap()
    };
    let input = at("1000");
    for (now, inside) in [(939, false), (940, true), (1000, true), (1060, true), (1061, false)] {
        assert_eq!(input.is_in_window(now), inside, "now {now}");
    }
    assert!(!at("-999999999999999").is_in_window(i64::MAX));
    assert!(!at("999999999999999").is_in_window(i64::MIN));
}

#[test]
fn our_signature_is_found_among_others() {
    let ours = format!("({REQUIRED}){};tag=\"unibus\"", parameters());
    let foreign = "(\"@status\";req \"x-anything\");created=1;tag=\"proxy\";expires=2";
    let both = format!("{}, {}", signature_of("a"), signature_of("b"));
    let input = SignatureInput::parse(&format!("a={foreign}, b={ours}"), &both).unwrap();
    assert_eq!(input.nonce(), NONCE);
    // Without any tag, only one signature can be meant.
    let plain = format!("({REQUIRED}){}", parameters());
    assert!(SignatureInput::parse(&format!("a={foreign}, b={plain}"), &both).is_ok());
    let two = SignatureInput::parse(&format!("a={plain}, b={plain}"), &both);
    assert_eq!(two, Err(ParseError::NotForUs));
    let two = SignatureInput::parse(&format!("a={ours}, b={ours}"), &both);
    assert_eq!(two, Err(ParseError::Ambiguous));
    let none = SignatureInput::parse(&format!("a={foreign}"), &signature_of("a"));
    assert_eq!(none, Err(ParseError::NotForUs));
    assert_eq!(
        SignatureInput::parse(&format!("a={ours}"), &signature_of("b")),
        Err(ParseError::MissingSignature)
    );
}

#[test]
fn each_malformed_field_has_its_error() {
    let good = format!("sig1=({REQUIRED}){}", parameters());
    let signature = signature_of("sig1");
    assert!(SignatureInput::parse(&good, &signature).is_ok());
    let input_syntax = Err(ParseError::Syntax { field: "Signature-Input" });
    let input_form = Err(ParseError::NotCanonical { field: "Signature-Input" });
    let cases: Vec<(String, String, Result<SignatureInput, ParseError>)> = vec![
        (String::new(), signature.clone(), input_form.clone()),
        ("sig1=".into(), signature.clone(), input_syntax.clone()),
        ("sig1=\"text\"".into(), signature.clone(), input_syntax.clone()),
        (format!("{good};"), signature.clone(), input_syntax),
        (format!(" {good}"), signature.clone(), input_form.clone()),
        (good.replace("\" \"", "\"  \""), signature.clone(), input_form.clone()),
        (format!("{good}, {good}"), signature.clone(), input_form.clone()),
        (format!("{good};created=1"), signature.clone(), input_form),
        (good.clone(), String::new(), Err(ParseError::NotCanonical { field: "Signature" })),
        (good.clone(), "sig1=:A".into(), Err(ParseError::Syntax { field: "Signature" })),
        (good.clone(), "sig1=:AAAA:".into(), Err(ParseError::SignatureLength)),
        (good.clone(), "sig1=(:AAAA:)".into(), Err(ParseError::SignatureLength)),
        (good.clone(), format!("{signature};p=1"), Err(ParseError::SignatureLength)),
        (good.clone(), "sig1=token".into(), Err(ParseError::SignatureLength)),
        (
            "a".repeat(4097),
            signature,
            Err(ParseError::TooLong { field: "Signature-Input", found: 4097, limit: 4096 }),
        ),
        (good, "a".repeat(1025), Err(ParseError::TooLong { field: "Signature", found: 1025, limit: 1024 })),
    ];
    for (input, signature, expected) in cases {
        assert_eq!(SignatureInput::parse(&input, &signature), expected, "{input} / {signature}");
    }
    let labels = |n: u8| (0..n).map(|i| format!("s{i}=()")).collect::<Vec<_>>().join(", ");
    assert_eq!(SignatureInput::parse(&labels(5), &signature_of("s0")), Err(ParseError::TooMany { found: 5 }));
}

#[test]
fn each_wrong_component_has_its_error() {
    let with = |components: &str| input_with(components, &parameters()).unwrap_err();
    assert_eq!(with("\"@path\" \"@query\""), ParseError::MissingComponent(Component::Method));
    assert_eq!(with("\"@method\" \"@query\""), ParseError::MissingComponent(Component::Path));
    assert_eq!(with(""), ParseError::MissingComponent(Component::Method));
    assert_eq!(with(&format!("{REQUIRED} \"@path\"")), ParseError::DuplicateComponent(Component::Path));
    for component in
        ["\"@target-uri\"", "\"@METHOD\"", "\"cookie\"", "token", "1", "\"@query\";req", "\"@path\";bs"]
    {
        assert_eq!(
            with(&format!("\"@method\" {component}")),
            ParseError::UnsupportedComponent,
            "{component}"
        );
    }
    let many = std::iter::repeat_n("\"@path\"", 9).collect::<Vec<_>>().join(" ");
    assert_eq!(with(&many), ParseError::TooManyComponents { found: 9 });
}

#[test]
fn each_wrong_parameter_has_its_error() {
    let good = [
        ("created", "1618884473".to_owned()),
        ("nonce", format!("\"{NONCE}\"")),
        ("keyid", format!("\"{KEY}\"")),
        ("alg", "\"ed25519\"".to_owned()),
    ];
    let write = |parameters: &[(&str, String)]| {
        parameters.iter().map(|(name, value)| format!(";{name}={value}")).collect::<String>()
    };
    assert!(input_with(REQUIRED, &write(&good)).is_ok());
    for (index, (name, _)) in good.iter().enumerate() {
        let mut without = good.to_vec();
        without.remove(index);
        let expected = if *name == "alg" { None } else { Some(ParseError::MissingParameter(name)) };
        assert_eq!(input_with(REQUIRED, &write(&without)).err(), expected);
    }
    let bad = [
        ("created", "\"1618884473\""),
        ("created", "1.5"),
        ("created", "@1618884473"),
        ("nonce", "123456789012345"),
        ("nonce", "\"\""),
        ("nonce", "\"spaces are not allowed\""),
        ("keyid", "\"01\""),
        ("keyid", "token"),
        ("alg", "\"hmac-sha256\""),
        ("alg", "\"ED25519\""),
        ("alg", "ed25519"),
    ];
    for (name, value) in bad {
        let mut changed = good.to_vec();
        for parameter in &mut changed {
            if parameter.0 == name {
                parameter.1 = value.to_owned();
            }
        }
        assert_eq!(
            input_with(REQUIRED, &write(&changed)),
            Err(ParseError::BadParameter(name)),
            "{name}={value}"
        );
    }
    let upper = KEY.replace("01", "AB");
    let mut changed = good.to_vec();
    changed[2].1 = format!("\"{upper}\"");
    assert!(input_with(REQUIRED, &write(&changed)).is_ok(), "hexadecimal digits of both cases name a key");
    let extra = format!("{};context=1", write(&good));
    assert_eq!(input_with(REQUIRED, &extra), Err(ParseError::UnknownParameter));
}

#[test]
fn a_query_that_is_not_covered_gives_no_base() {
    let request = |query| Request { method: "GET", path: "/rooms", query, ..Request::default() };
    let bare = input_with("\"@method\" \"@path\"", &parameters()).unwrap();
    assert!(bare.base(&request(None)).is_ok());
    assert_eq!(bare.base(&request(Some("epoch=1"))), Err(BaseError::Uncovered(Component::Query)));
    assert_eq!(bare.base(&request(Some(""))), Err(BaseError::Uncovered(Component::Query)));
    let target = input_with("\"@method\" \"@request-target\"", &parameters()).unwrap();
    let base = target.base(&request(Some("epoch=1"))).unwrap();
    assert!(base.starts_with("\"@method\": GET\n\"@request-target\": /rooms?epoch=1\n"), "{base}");
}

#[test]
fn an_expired_signature_is_out_of_its_window() {
    let with = |expires: i64| {
        let parameters = format!(";created=1000;expires={expires};nonce=\"{NONCE}\";keyid=\"{KEY}\"");
        input_with(REQUIRED, &parameters).unwrap()
    };
    assert!(with(1010).is_in_window(1010));
    assert!(!with(1010).is_in_window(1011));
    assert!(!with(9000).is_in_window(1061), "`expires` does not widen the window");
}

#[test]
fn every_cut_and_every_changed_byte_is_refused_or_changes_the_base() {
    let request = Request { method: "GET", path: "/rooms", query: Some("a=1"), ..Request::default() };
    let good = format!("sig1=({REQUIRED}){}", parameters());
    let signature = signature_of("sig1");
    let base = SignatureInput::parse(&good, &signature).unwrap().base(&request).unwrap();
    for cut in 0..good.len() {
        if let Ok(input) = SignatureInput::parse(&good[..cut], &signature) {
            assert_ne!(input.base(&request).as_ref(), Ok(&base), "cut at {cut}");
        }
    }
    for index in 0..good.len() {
        for replacement in [b'"', b'a', b'0', b' ', b';', b'='] {
            let mut bytes = good.clone().into_bytes();
            if bytes[index] == replacement {
                continue;
            }
            bytes[index] = replacement;
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(input) = SignatureInput::parse(&text, &signature) {
                assert_ne!(input.base(&request).as_ref(), Ok(&base), "byte {index} as {replacement}");
            }
        }
    }
}

#[test]
fn nothing_secret_is_printed() {
    let input = input_with(REQUIRED, &parameters()).unwrap();
    let text = format!("{input:?}");
    assert!(!text.contains(NONCE) && !text.contains(KEY) && !text.contains(", 9"), "{text}");
}
