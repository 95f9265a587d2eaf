//! Compares the strategies of `firn_streamer::layering` on series of real versions, as a Markdown
//! table: `cargo run -p firn-streamer --example layering`. The series in `series/` are made from
//! Debian's lists of packages, one store path a package; how, `packages` says.

mod change;
mod measure;
mod packages;
mod report;
mod series;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context as _;
use clap::Parser;

/// Compares ways to put store paths into layers, on real series of versions.
#[derive(Debug, Parser)]
enum Command {
    /// Prints the comparison.
    Report,
    /// Writes the comparison into a page, between its marks.
    Write {
        /// `docs/layering.md`.
        page: PathBuf,
    },
    /// Makes a series file of one suite and prints it.
    Series {
        /// `bookworm`, `trixie` or `forky`.
        suite: String,
        /// `dists/<suite>/main/binary-amd64/Packages`, unpacked.
        packages: PathBuf,
        /// `dists/<suite>/Release`.
        release: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let text = match Command::parse() {
        Command::Report => report::all(),
        Command::Write { page } => {
            let written = report::into_page(&read(&page)?).context("the page has no marks")?;
            fs::write(&page, written)?;
            String::new()
        }
        Command::Series {
            suite,
            packages,
            release,
        } => packages::series(&suite, &read(&packages)?, &read(&release)?)?,
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/layering.md");
    const REFRESH: &str = "refresh docs/layering.md with `cargo run -p firn-streamer --release --example layering \
         write docs/layering.md`";

    /// The tables that take a debug build seconds and not minutes; a change of a strategy that
    /// changes the others changes these.
    #[test]
    fn the_published_tables_are_those_of_this_version() {
        for table in [report::each_path_of(&series::SETS[0]), report::family()] {
            assert!(PAGE.contains(&table), "{REFRESH}; it should have\n{table}");
        }
    }

    #[test]
    fn every_set_is_in_every_suite() {
        for (suite, text) in series::SUITES {
            for set in series::SETS.iter().chain(&series::FAMILY) {
                let image = series::image(set, text);
                assert!(image.len() > 10, "{} of {suite}: {}", set.name, image.len());
            }
        }
    }

    #[test]
    fn a_circle_is_broken_where_it_closes_and_a_missing_alternative_passed_over() {
        let roots = series::roots();
        let depends = "Depends: ring-a, gone | there (>= 1)\n";
        let stanzas = roots
            .iter()
            .map(|root| format!("Package: {root}\nVersion: 1\nSize: 10\n{depends}\n"));
        let mut list: String = stanzas.collect();
        list += "Package: ring-a\nVersion: 2:1~x\nInstalled-Size: 7\nSize: 20\nDepends: ring-b\n\n\
                 Package: ring-b\nVersion: 1\nSize: 30\nDepends: ring-a:any\n\n\
                 Package: other\nVersion: 1\nSize: 40\nProvides: there (= 1)\n";
        let text = packages::series("made", &list, "Date: today\n").unwrap();
        assert!(
            text.starts_with("# Debian made main amd64, Release of today\n"),
            "{text}"
        );
        for line in [
            "ring-a\t2:1~x\t7\t20\tring-b\n",
            "ring-b\t1\t0\t30\t\n",
            "gunicorn\t1\t0\t10\tother ring-a\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
