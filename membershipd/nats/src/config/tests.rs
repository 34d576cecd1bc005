//! What is rendered, and what is refused.

use super::*;
use crate::identity::InternalIdentity;

const PASSWORD: &str = "p%4@/:#{}[]$x";

fn nkey() -> Nkey {
    InternalIdentity::ephemeral().unwrap().public().clone()
}

fn config() -> ServerConfig {
    ServerConfig {
        server_name: "n0".parse().unwrap(),
        bind: [127, 0, 0, 1].into(),
        client_port: 4250,
        client_tls: None,
        monitor_port: None,
        cluster: None,
        store_dir: "/var/lib/unibus/nats".into(),
        sync: Sync::Always,
        jetstream_cipher: None,
        control_identity: nkey(),
        system_identity: nkey(),
        extra_users: Vec::new(),
    }
}

fn cluster() -> ClusterConfig {
    ClusterConfig {
        name: "c".parse().unwrap(),
        port: 6250,
        advertise: Some("n0.example:6250".parse().unwrap()),
        routes: vec!["nats://n1.example:6250".parse().unwrap(), "[::1]:6251".parse().unwrap()],
        user: "route".parse().unwrap(),
        password: Password::new(PASSWORD.to_owned().into()).unwrap(),
        tls: Some(tls(Some("/tls/ca.pem"))),
    }
}

fn tls(ca: Option<&str>) -> TlsFiles {
    TlsFiles { certificate: "/tls/c.pem".into(), key: "/tls/k.pem".into(), ca: ca.map(Into::into) }
}

fn key() -> ServerKey {
    ServerKey::from_bytes(&[0xA5; 32]).unwrap()
}

#[test]
fn a_cluster_is_rendered_with_its_credentials_in_the_routes() {
    let mut config = config();
    config.cluster = Some(cluster());
    let text = config.render().unwrap();
    let encoded = "p%254%40%2F%3A%23%7B%7D%5B%5D%24x";
    for wanted in [
        "pool_size: -1",
        "no_advertise: true",
        "timeout: 5",
        "verify: true",
        "sync_interval: always",
        "max_payload: 1048576",
        "system_account: SYS",
        "advertise: \"n0.example:6250\"",
        &format!("password: \"{PASSWORD}\""),
        &format!("\"nats-route://route:{encoded}@n1.example:6250\""),
        &format!("\"nats-route://route:{encoded}@[::1]:6251\""),
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} is not in\n{}", *text);
    }
    assert!(!text.contains("http:"), "the monitoring pages are on without being asked for");
}

#[test]
fn no_configuration_has_a_previous_key_or_an_empty_one() {
    for cipher in [None, Some(Cipher::Aes), Some(Cipher::ChaCha)] {
        for in_cluster in [false, true] {
            let mut config = config();
            config.jetstream_cipher = cipher.map(|cipher| (cipher, key()));
            config.cluster = in_cluster.then(cluster);
            let text = config.render().unwrap();
            assert!(!text.contains("prev"), "a second key would convert in place:\n{}", *text);
            let keys: Vec<_> = text.lines().filter(|line| line.starts_with("key: ")).collect();
            let wanted = format!("key: \"k{}\"", "a5".repeat(32));
            assert_eq!(keys, cipher.map(|_| wanted.as_str()).into_iter().collect::<Vec<_>>());
            assert_eq!(text.contains("cipher: "), cipher.is_some());
        }
    }
}

#[test]
fn a_key_is_32_bytes_and_nothing_else() {
    assert!(ServerKey::from_bytes(&[0; 32]).is_err());
    let short = "a5".repeat(31);
    for wrong in ["", "\n", "k", "short", &short, &"a5".repeat(33), &"0".repeat(64), &"g5".repeat(32), "$JSK"]
    {
        let refused = ServerKey::from_hex(wrong).unwrap_err();
        assert!(matches!(refused, NatsError::ServerKey { .. }), "{wrong}: {refused:?}");
    }
    let spelled = ServerKey::from_hex(&format!("{}\n", "A5".repeat(32))).unwrap();
    assert_eq!(spelled.expose(), key().expose());
    assert_eq!(spelled.fingerprint(), key().fingerprint());
    assert_ne!(ServerKey::from_bytes(&[0xA6; 32]).unwrap().fingerprint(), key().fingerprint());
    assert!(!format!("{spelled:?} {}", spelled.fingerprint()).contains("a5a5"));
}

/// Text that would end its quotes, add a setting, or be read as something else.
const ODD: [&str; 14] = [
    "",
    "\"",
    "a\" b",
    "a\nb: c",
    "a\r",
    "a\0",
    "a b",
    "$PATH",
    "a}",
    "a\\",
    "# a",
    "\u{fc}",
    "a'b",
    "include \"/etc/passwd\"",
];

#[test]
fn no_value_can_end_its_quotes() {
    for odd in ODD {
        assert!(odd.parse::<Name>().is_err(), "name {odd:?}");
        assert!(odd.parse::<Nkey>().is_err(), "nkey {odd:?}");
        assert!(odd.parse::<Route>().is_err(), "route {odd:?}");
        assert!(format!("{odd}:6250").parse::<Route>().is_err(), "route {odd:?}");
        if !["a}", "# a"].contains(&odd) {
            assert!(Password::new(odd.to_owned().into()).is_err(), "password {odd:?}");
        }
    }
    assert!("n".repeat(64).parse::<Name>().is_err());
    assert!(Password::new("$2a$11$x".to_owned().into()).is_err(), "it would be taken for a hash");
    assert!(Password::new("p".repeat(129).into()).is_err());
    for path in ["relative", "/a\"b", "/a\\b", "/a\nb"] {
        let mut config = config();
        config.store_dir = path.into();
        assert!(config.render().is_err(), "{path:?}");
        let mut config = self::config();
        config.client_tls = Some(TlsFiles { key: path.into(), ..tls(None) });
        assert!(config.render().is_err(), "{path:?}");
    }
    let mut config = config();
    let subjects = Some(vec!["a.>\", \"b".to_owned()]);
    config.extra_users = vec![ExtraUser { account: Account::Bus, nkey: nkey(), subjects }];
    assert!(config.render().is_err());
}

#[test]
fn a_route_is_given_without_credentials() {
    for wrong in [
        "nats://u:p@host:1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        ":1",
        "http://host:1",
        "[x]:1",
        "nats://",
    ] {
        assert!(wrong.parse::<Route>().is_err(), "{wrong}");
    }
    assert_eq!("nats://10.0.0.1:6250".parse::<Route>().unwrap().to_string(), "10.0.0.1:6250");
}

#[test]
fn an_identity_is_the_public_nkey_of_a_user() {
    let pair = nkeys::KeyPair::new_user();
    assert!(pair.public_key().parse::<Nkey>().is_ok());
    assert!(pair.seed().unwrap().parse::<Nkey>().is_err(), "a seed would lie in the configuration");
    assert!(nkeys::KeyPair::new_account().public_key().parse::<Nkey>().is_err());
    assert!(pair.public_key().to_lowercase().parse::<Nkey>().is_err());
    let mut config = config();
    config.system_identity = config.control_identity.clone();
    assert!(config.render().is_err());
}

#[test]
fn the_address_of_clients_is_one_that_can_be_reached() {
    let mut config = config();
    config.bind = [0, 0, 0, 0].into();
    config.monitor_port = Some(8222);
    config.cluster = Some(cluster());
    assert_eq!(config.client_address().to_string(), "127.0.0.1:4250");
    let all: Vec<_> = config.listens_on().into_iter().map(|(_, address)| address.to_string()).collect();
    assert_eq!(all, ["0.0.0.0:4250", "0.0.0.0:6250", "127.0.0.1:8222"]);
}

#[test]
fn route_tls_without_a_ca_is_refused() {
    let mut config = config();
    config.cluster = Some(ClusterConfig { tls: Some(tls(None)), ..cluster() });
    assert!(config.render().is_err());
}
