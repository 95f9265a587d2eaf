//! Authorisation against the fake registry: which credentials go where, and how often.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use firn_oci::registry::{
    Credentials, Error, Login, Mount, PushError, Registry, RegistrySettings, Reread, Secret,
};
use firn_oci::testing::{Access, Answer, FakeRegistry};
use firn_oci::{Descriptor, Digest, Repository, media_type};

fn repository() -> Repository {
    "team/app".parse().unwrap()
}

fn password(value: &str) -> Login {
    Login::Password {
        username: "user".to_owned(),
        password: Secret::new(value.to_owned()),
    }
}

fn client(fake: &FakeRegistry, login: Login) -> Registry {
    Registry::new(RegistrySettings {
        credentials: Credentials::of(fake.host(), login),
        ..fake.settings()
    })
    .unwrap()
}

fn bearer() -> Access {
    Access::Bearer {
        username: "user".to_owned(),
        password: "canary".to_owned(),
        expires_in: 300,
        withheld: Vec::new(),
    }
}

async fn protected(access: Access) -> FakeRegistry {
    let fake = FakeRegistry::start().await.unwrap();
    fake.set_access(access);
    fake
}

fn basic() -> Access {
    Access::Basic {
        username: "user".to_owned(),
        password: "canary".to_owned(),
    }
}

#[tokio::test]
async fn name_and_password_are_sent_from_the_first_request_on() {
    let fake = protected(basic()).await;
    let registry = client(&fake, password("canary"));
    assert!(
        !registry
            .head_blob(&repository(), &Digest::of(b""))
            .await
            .unwrap()
    );
    assert!(
        !registry
            .head_blob(&repository(), &Digest::of(b""))
            .await
            .unwrap()
    );
    // The scheme is asked for once.
    assert_eq!(
        (fake.count("GET", "/v2/"), fake.count("HEAD", "/blobs/")),
        (1, 2)
    );
    registry.ping().await.unwrap();
}

#[tokio::test]
async fn one_token_serves_all_requests_of_the_same_rights() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, password("canary"));
    registry.can_push(&repository()).await.unwrap();
    registry.can_push(&repository()).await.unwrap();
    assert_eq!(fake.count("GET", "/token"), 1);
    let asked = fake
        .seen()
        .into_iter()
        .find(|seen| seen.path.starts_with("/token"))
        .unwrap();
    assert!(asked.path.contains("service=fake"), "{}", asked.path);
    assert!(
        asked
            .path
            .contains("scope=repository%3Ateam%2Fapp%3Apull%2Cpush"),
        "{}",
        asked.path
    );
}

#[tokio::test]
async fn parallel_requests_share_one_token() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, password("canary"));
    let digest = Digest::of(b"");
    let repository = repository();
    let requests = (0..8).map(|_| registry.head_blob(&repository, &digest));
    for there in futures::future::join_all(requests).await {
        assert!(!there.unwrap());
    }
    assert_eq!(
        (fake.count("GET", "/token"), fake.count("GET", "/v2/")),
        (1, 1)
    );
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_by_post() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, Login::Identity(Secret::new("canary".to_owned())));
    registry.can_push(&repository()).await.unwrap();
    assert_eq!(
        (fake.count("POST", "/token"), fake.count("GET", "/token")),
        (1, 0)
    );
    assert!(fake.seen().iter().all(|seen| !seen.path.contains("canary")));
}

#[tokio::test]
async fn a_token_from_the_credentials_is_sent_as_it_is() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, Login::Bearer(Secret::new("canary".to_owned())));
    let error = registry.can_push(&repository()).await.unwrap_err();
    assert!(error.is_auth(), "{error}");
    let seen = fake.seen();
    assert_eq!(
        seen.len(),
        1,
        "asking again with the same token is of no use"
    );
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer canary"));
}

#[tokio::test]
async fn a_token_that_ended_is_renewed_once() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, password("canary"));
    registry.can_push(&repository()).await.unwrap();
    fake.expire_tokens();
    registry.can_push(&repository()).await.unwrap();
    assert_eq!(fake.count("GET", "/token"), 2);
}

#[tokio::test]
async fn a_token_is_renewed_by_its_age_without_being_refused_first() {
    let fake = protected(Access::Bearer {
        username: "user".to_owned(),
        password: "canary".to_owned(),
        expires_in: 1,
        withheld: Vec::new(),
    })
    .await;
    let registry = client(&fake, password("canary"));
    // The fake takes old tokens for ever: only the client's own clock asks for a new one.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fake.count("GET", "/token") < 2 {
        assert!(std::time::Instant::now() < deadline, "never renewed");
        registry.ping().await.unwrap();
        registry
            .head_blob(&repository(), &Digest::of(b""))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_401_in_mid_body_costs_one_more_production() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, password("canary"));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"fake\"",
        fake.host()
    );
    let headers = vec![("www-authenticate", challenge)];
    fake.fault("PATCH", "/uploads/", Answer::Status(401, headers, ""));
    let data = vec![b'x'; 3_000_000];
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &data);
    let digest = descriptor.digest;
    registry
        .push_stream(&repository(), move |sink| {
            sink.write_all(&data)?;
            Ok::<_, io::Error>((descriptor.clone(), ()))
        })
        .await
        .unwrap();
    assert_eq!(
        (fake.count("PATCH", ""), fake.count("GET", "/token")),
        (2, 2)
    );
    assert!(fake.blob("team/app", &digest).is_some());
}

#[tokio::test]
async fn a_registry_that_always_says_401_is_believed() {
    let fake = protected(bearer()).await;
    let registry = client(&fake, password("canary"));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"fake\"",
        fake.host()
    );
    for _ in 0..9 {
        let headers = vec![("www-authenticate", challenge.clone())];
        fake.fault("PATCH", "/uploads/", Answer::Status(401, headers, ""));
    }
    let result: Result<(), PushError<io::Error>> = registry
        .push_stream(&repository(), |sink| {
            sink.write_all(b"x")?;
            Ok((Descriptor::of(media_type::LAYER_TAR, b"x"), ()))
        })
        .await;
    let Err(PushError::Registry(error)) = result else {
        panic!("{result:?}");
    };
    assert!(error.is_auth());
    assert_eq!(fake.count("PATCH", ""), 2);
}

#[tokio::test]
async fn a_mount_asks_for_both_rights_in_one_token() {
    let fake = protected(bearer()).await;
    let digest = fake.put_blob("base/image", "layer");
    let registry = client(&fake, password("canary"));
    let from = "base/image".parse().unwrap();
    let mount = registry.mount(&repository(), &digest, &from).await.unwrap();
    assert!(matches!(mount, Mount::Mounted));
    assert_eq!(fake.count("GET", "/token"), 1);
}

#[tokio::test]
async fn credentials_do_not_follow_a_location_to_another_origin() {
    let fake = protected(bearer()).await;
    let other = FakeRegistry::start().await.unwrap();
    let location = format!(
        "http://{}/v2/team/app/blobs/uploads/1?state=a",
        other.host()
    );
    fake.fault("POST", "/uploads/", Answer::Location(location));
    // The other one has a session of this number.
    other
        .client()
        .unwrap()
        .start_upload(&repository())
        .await
        .map(std::mem::forget)
        .unwrap();
    other.forget();
    let registry = client(&fake, password("canary"));
    let data = b"x".to_vec();
    registry
        .push_stream(&repository(), move |sink| {
            sink.write_all(&data)?;
            Ok::<_, io::Error>((Descriptor::of(media_type::LAYER_TAR, b"x"), ()))
        })
        .await
        .unwrap();
    let seen = other.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter().all(|seen| seen.authorization.is_none()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn an_unsafe_token_service_gets_nothing() {
    let fake = FakeRegistry::start().await.unwrap();
    let challenge = "Bearer realm=\"http://169.254.169.254/token\"".to_owned();
    fake.fault(
        "GET",
        "/v2/",
        Answer::Status(401, vec![("www-authenticate", challenge)], ""),
    );
    let registry = client(&fake, password("canary"));
    let error = registry.can_push(&repository()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn refusals_say_who_and_what_and_what_to_do() {
    let mut messages = Vec::new();
    let mut note = |fake: &FakeRegistry, error: &Error| {
        assert!(error.is_auth() && !error.is_retryable());
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("canary") && !shown.contains("wrong-one"),
            "{shown}"
        );
        messages.push(error.to_string().replace(fake.host().as_str(), "HOST"));
    };
    let fake = protected(basic()).await;
    let anonymous = fake.client().unwrap();
    note(&fake, &anonymous.can_push(&repository()).await.unwrap_err());
    let wrong = client(&fake, password("wrong-one"));
    note(&fake, &wrong.can_push(&repository()).await.unwrap_err());
    let helper = Registry::new(RegistrySettings {
        credentials: Credentials::from_docker_config(br#"{"credsStore":"desktop"}"#).unwrap(),
        ..fake.settings()
    })
    .unwrap();
    note(&fake, &helper.can_push(&repository()).await.unwrap_err());

    let fake = protected(bearer()).await;
    let wrong = client(&fake, password("wrong-one"));
    note(&fake, &wrong.can_push(&repository()).await.unwrap_err());

    let fake = protected(Access::Bearer {
        username: "user".to_owned(),
        password: "canary".to_owned(),
        expires_in: 60,
        withheld: vec!["push".to_owned()],
    })
    .await;
    let reader = client(&fake, password("canary"));
    note(&fake, &reader.can_push(&repository()).await.unwrap_err());

    let fake = FakeRegistry::start().await.unwrap();
    let denied = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
    fake.fault("POST", "/uploads/", Answer::Status(403, vec![], denied));
    let denied = client(&fake, password("canary"));
    note(&fake, &denied.can_push(&repository()).await.unwrap_err());
    expect_test::expect![[r#"
        failed to start an upload in repository "team/app" of registry "HOST": it answered 401 Unauthorized ("UNAUTHORIZED: authentication required"); give credentials for this registry
        failed to start an upload in repository "team/app" of registry "HOST": it answered 401 Unauthorized ("UNAUTHORIZED: authentication required"); check that the name and the password or token are right and have not expired
        failed to start an upload in repository "team/app" of registry "HOST": it answered 401 Unauthorized ("UNAUTHORIZED: authentication required"); the credentials name a helper program, which is not run: put a login for this registry into "auths"
        failed to get a token for the work in repository "team/app" of registry "HOST": its token service "127.0.0.1" answered 401 Unauthorized ("incorrect username or password"); check that the name and the password or token are right and have not expired
        failed to start an upload in repository "team/app" of registry "HOST": it answered 401 Unauthorized ("UNAUTHORIZED: authentication required"); give credentials that may do this in this repository
        failed to start an upload in repository "team/app" of registry "HOST": it answered 403 Forbidden ("DENIED: not yours"); give credentials that may do this in this repository
    "#]].assert_eq(&(messages.join("\n") + "\n"));
}

/// A client with a password that is wrong by now, and the right one to be had.
fn rotated(fake: &FakeRegistry, login: Login) -> (Registry, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let (counted, host) = (Arc::clone(&reads), fake.host().clone());
    let registry = Registry::new(RegistrySettings {
        credentials: Credentials::of(fake.host(), password("old")),
        reread: Some(Reread::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Some(Credentials::of(&host, login.clone()))
        })),
        ..fake.settings()
    })
    .unwrap();
    (registry, reads)
}

#[tokio::test]
async fn credentials_that_were_rotated_are_read_again_once() {
    for access in [basic(), bearer()] {
        let fake = protected(access).await;
        let (registry, reads) = rotated(&fake, password("canary"));
        let repository = repository();
        let pushes = (0..8).map(|_| registry.can_push(&repository));
        for pushed in futures::future::join_all(pushes).await {
            pushed.unwrap();
        }
        registry.can_push(&repository).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn credentials_that_were_rotated_in_mid_push_are_read_again() {
    let fake = protected(basic()).await;
    let (registry, reads) = rotated(&fake, password("new"));
    let registry = {
        // Right at first: the fake still takes the old one.
        fake.set_access(Access::Basic {
            username: "user".to_owned(),
            password: "old".to_owned(),
        });
        registry
    };
    let upload = registry.start_upload(&repository()).await.unwrap();
    fake.set_access(Access::Basic {
        username: "user".to_owned(),
        password: "new".to_owned(),
    });
    let pushed: Result<(), PushError<io::Error>> = upload
        .push(|sink| {
            sink.write_all(b"layer")?;
            Ok((Descriptor::of(media_type::LAYER_TAR, b"layer"), ()))
        })
        .await;
    pushed.unwrap();
    assert!(fake.blob("team/app", &Digest::of(b"layer")).is_some());
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn credentials_that_stay_wrong_are_asked_for_once_and_told() {
    for access in [basic(), bearer()] {
        let fake = protected(access).await;
        let (registry, reads) = rotated(&fake, password("old"));
        let error = registry.can_push(&repository()).await.unwrap_err();
        assert!(error.is_auth(), "{error}");
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_config_file_that_is_replaced_is_read_again() {
    let fake = protected(basic()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let registry = Registry::new(RegistrySettings {
        credentials: Credentials::of(fake.host(), password("old")),
        reread: Some(Reread::docker_config(file.clone())),
        ..fake.settings()
    })
    .unwrap();
    // Not there, and half written: what there was is kept, and refused.
    assert!(
        registry
            .can_push(&repository())
            .await
            .unwrap_err()
            .is_auth()
    );
    std::fs::write(&file, "{\"auths\"").unwrap();
    assert!(
        registry
            .can_push(&repository())
            .await
            .unwrap_err()
            .is_auth()
    );
    let host = fake.host();
    let whole = format!(r#"{{"auths":{{"{host}":{{"username":"user","password":"canary"}}}}}}"#);
    std::fs::write(&file, whole).unwrap();
    registry.can_push(&repository()).await.unwrap();
}
