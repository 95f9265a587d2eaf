//! The operator's own server, over real sockets.

use std::sync::Arc;

use firn_operator::metrics::{self, Metrics};
use firn_operator::server::{self, Readiness};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[tokio::test]
async fn readiness_names_what_is_missing_and_liveness_does_not_care() {
    let readiness = Readiness::waiting_for(["CRD niximages.firn.dev", "controllers"]);
    let mut registry = metrics::registry();
    Metrics::register(&mut registry).leads(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server::serve(
        listener,
        Arc::new(registry),
        readiness.clone(),
        async {
            let _ = stopped.await;
        },
    ));
    let get = async |path: &str| {
        let response = reqwest::get(format!("{base}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(
        get("/readyz").await,
        (503, "missing: CRD niximages.firn.dev, controllers\n".into())
    );
    assert_eq!(get("/healthz").await, (200, "ok\n".into()));
    readiness.done("controllers");
    assert_eq!(
        get("/readyz").await,
        (503, "missing: CRD niximages.firn.dev\n".into())
    );
    readiness.done("CRD niximages.firn.dev");
    assert_eq!(get("/readyz").await, (200, "ok\n".into()));
    readiness.lost("controllers");
    assert_eq!(get("/readyz").await.0, 503);
    let (status, text) = get("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        text.contains("firn_leader 1\n") && text.ends_with("# EOF\n"),
        "{text}"
    );
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
}
