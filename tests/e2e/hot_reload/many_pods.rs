//! Several pods of one deployment, on however many nodes: all have what is saved,
//! also those that come later.

use super::apps::APPS;
use super::stage::{SOON, Stage, Way, with};
use crate::Named;
use crate::clusters::Cluster;
use devloop_tests::eventually;

pub(crate) fn cases(cluster: Cluster, way: Way) -> Vec<Named> {
    let app = APPS.iter().find(|app| app.name == "static-site").expect("it is in the list");
    vec![Named::new(format!("hot_reload::many_pods_by_{}", way.name()), move || with(cluster, app, way, grow))]
}

fn grow(stage: &mut Stage) {
    stage.session();
    let page = stage.page("page.txt");
    stage.example.write(&page, "before there are more");
    let deployment = format!("deployment/{}", stage.app.name);
    for replicas in [4, 2, 6] {
        stage.example.kubectl(&["scale", &deployment, &format!("--replicas={replicas}")]).run().ok();
        stage.example.rolled_out();
        // A change in the middle of it.
        stage.example.write(&page, format!("for {replicas}"));
        eventually(&format!("all {replicas} pods have the pages"), SOON, || {
            let pods = stage.example.pods();
            if pods.len() != replicas {
                return Err(format!("{} pods", pods.len()));
            }
            let local = stage.local_pages().files();
            let differences: Vec<String> = pods.iter().flat_map(|pod| local.differences(&stage.pages(pod).files())).collect();
            if differences.is_empty() { Ok(()) } else { Err(format!("local / pod: {differences:#?}")) }
        });
    }
    stage.example.kubectl(&["scale", &deployment, "--replicas=1"]).run().ok();
    stage.example.restore();
    stage.converges();
}
