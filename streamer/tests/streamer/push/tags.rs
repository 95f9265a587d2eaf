//! Tags that others moved, under each `output.tagPolicy`.

use firn_crd::output::TagPolicy;

use super::*;

impl Pod {
    /// Somebody else pushes an image of another closure and points these tags to it.
    async fn others_push(&mut self, tags: &[&str]) -> Pushed {
        let (mine, ours) = (self.tags.clone(), std::mem::take(&mut self.ours));
        let policy = std::mem::take(&mut self.tag_policy);
        let packages = self.packages.clone();
        self.tags = tags.iter().map(ToString::to_string).collect();
        let last = self.packages.last_mut().unwrap();
        last.path = store_path(11, 77);
        last.contents = noise(77, 1000);
        self.write(self.packages.last().unwrap());
        self.hand_off();
        let pushed = self.push().await;
        self.packages = packages;
        (self.tags, self.ours, self.tag_policy) = (mine, ours, policy);
        self.hand_off();
        pushed
    }

    fn puts_of_tags(&self) -> usize {
        let seen = self.registry.seen();
        let puts = seen.iter().filter(|seen| seen.method.as_str() == "PUT");
        puts.filter(|seen| seen.path.contains("/manifests/") && !seen.path.contains("sha256:"))
            .count()
    }
}

#[tokio::test]
async fn a_tag_of_others_is_overwritten_unless_something_else_is_said() {
    let mut pod = Pod::new().await;
    pod.others_push(&["latest"]).await;
    let pushed = pod.push().await;
    assert_eq!(pod.tagged("latest"), Some(pushed.digest));
    assert!(pushed.kept.is_empty());
}

#[tokio::test]
async fn a_tag_of_others_is_kept_and_the_rest_is_moved() {
    let mut pod = Pod::new().await;
    let others = pod.others_push(&["stable"]).await;
    pod.tag_policy = TagPolicy::Keep;
    pod.tags = vec!["latest".into(), "stable".into(), "v1".into()];
    let pushed = pod.push().await;
    assert_eq!(pod.tagged("stable"), Some(others.digest));
    assert_eq!(pod.tagged("latest"), Some(pushed.digest.clone()));
    assert_eq!(pod.tagged("v1"), Some(pushed.digest.clone()));
    assert_eq!(pushed.kept, [1]);
    // Again, unchanged: still theirs, and told again.
    pod.publish(&pushed);
    assert_eq!(pod.push().await.kept, [1]);
    // Tags alone.
    let (_never, stop) = Stop::never();
    let mut stages = Stages::default();
    let done = publish::publish(&pod.settings(), &pushed.digest, &mut stages, &stop).await;
    let Outcome::Published { kept, .. } = done.unwrap() else {
        panic!("published");
    };
    assert_eq!(kept, [1]);
}

#[tokio::test]
async fn no_tag_moves_when_one_of_others_is_in_the_way() {
    let mut pod = Pod::new().await;
    let others = pod.others_push(&["stable"]).await;
    pod.registry.forget();
    pod.tag_policy = TagPolicy::Fail;
    // The one in the way is not the first.
    pod.tags = vec!["latest".into(), "stable".into()];
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::TagExists);
    let words = &failure.0.message;
    for word in [":stable", &others.digest, "output.tagPolicy"] {
        assert!(words.contains(word), "{words}");
    }
    assert_eq!(pod.puts_of_tags(), 0);
    assert_eq!(pod.tagged("latest"), None);
    // Whoever deletes the tag, or has published what it points to, is let through.
    pod.ours = vec![others.digest];
    let pushed = pod.push().await;
    assert_eq!(pod.tagged("stable"), Some(pushed.digest.clone()));
    // A tag that points to the image already is in nobody's way.
    pod.ours = Vec::new();
    assert_eq!(pod.push().await.digest, pushed.digest);
}
