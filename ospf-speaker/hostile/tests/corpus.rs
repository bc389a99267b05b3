//! Every file of the fuzz targets' corpus, given to the target's own body.

use std::fs;
use std::path::Path;

use isopath_hostile::TARGETS;

#[test]
fn every_target_takes_its_whole_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let corpus = corpora.join(name);
        let entries = fs::read_dir(&corpus)
            .unwrap_or_else(|error| panic!("the corpus {}: {error}", corpus.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("a directory that can be listed").path();
            let bytes = fs::read(&path).expect("a file that can be read");
            // A panic says what was wrong; this says with which file.
            println!("{}", path.display());
            target(&bytes);
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
