//! The stories of `tests/cases`, one test each.

use std::collections::BTreeSet;

use crate::harness::case;

macro_rules! cases {
    ($($test:ident $file:literal)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] fn $test() { case::check($file); })*
    };
}

cases! {
    carry "carry"
    cors "cors"
    errors "errors"
    forwarded_trusted "forwarded-trusted"
    forwarded_untrusted "forwarded-untrusted"
    hop_by_hop "hop-by-hop"
    limits "limits"
    malformed "malformed"
    paths "paths"
    redirect "redirect"
    respond "respond"
    rewrite "rewrite"
    routing_conditions "routing-conditions"
    routing_hosts "routing-hosts"
    routing_methods "routing-methods"
    routing_paths "routing-paths"
    trace "trace"
}

#[test]
fn every_case_file_is_played() {
    let files = std::fs::read_dir(case::folder()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "case"));
    let files: BTreeSet<_> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(files, FILES.iter().map(|&file| file.to_owned()).collect());
}
