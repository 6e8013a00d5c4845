//! The same over a file.

use super::*;
use crate::audit::{
    checkpoint,
    export::{self, ExportError},
};

#[test]
fn an_export_verifies_elsewhere_as_it_does_at_home() {
    let world = World::busy();
    let anchors = world.evidence().anchors;
    let report = export::verify(&exported(&world)[..], &world.keys(), anchors).unwrap();
    assert_eq!(report, world.report());
    assert!(report.is_ok());
}

#[test]
fn a_cut_or_spliced_export_is_found() {
    let world = World::busy();
    let text = String::from_utf8(exported(&world)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let read = |text: String| export::verify(text.as_bytes(), &world.keys(), vec![]);
    let cut = |lines: &[&str]| read(lines.iter().flat_map(|line| [*line, "\n"]).collect());
    assert!(matches!(cut(&lines[..lines.len() - 1]), Err(ExportError::Cut(_))));
    assert!(matches!(cut(&[&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat()), Err(ExportError::Cut(_))));
    assert!(matches!(cut(&[&lines[..], &lines[..1]].concat()), Err(ExportError::Cut(_))));
    assert!(matches!(cut(&[&lines[..1], &lines[lines.len() - 2..], &lines[1..2]].concat()), Err(ExportError::Cut(_))));
    assert!(matches!(
        cut(&[&lines[..1], &lines[lines.len() - 2..lines.len() - 1], &lines[1..2]].concat()),
        Err(ExportError::Order { line: 3, .. })
    ));
    assert!(matches!(cut(&lines[1..]), Err(ExportError::Order { line: 1, .. })));
    assert!(matches!(read(text.trim_end().to_owned()), Err(ExportError::Cut(_))));
    assert!(matches!(read(String::new()), Err(ExportError::Order { .. })));
    assert!(matches!(read("[".repeat(export::MAX_LINE_BYTES + 9)), Err(ExportError::TooLong(1))));
    assert!(matches!(read("[".repeat(9_000) + "\n"), Err(ExportError::Line { line: 1, .. })));
}

#[test]
fn the_origin_is_that_of_the_deployment_and_the_organization() {
    assert_eq!(checkpoint::origin("gateway.example", &OrgId::parse("org_a").unwrap()), ORIGIN);
}
