//! What a program asks the dynamic loader for. Pure: bytes in, names out. Read with the `object`
//! crate and not with `ldd`, which runs the program, or `readelf`, which not every machine has.

use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, elf};

/// The part of an ELF file that its closure depends on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// `/lib64/ld-linux-x86-64.so.2`; none for libraries and static programs.
    pub(super) interpreter: Option<String>,
    /// `DT_NEEDED`, in order.
    pub(super) needed: Vec<String>,
    /// `DT_RPATH` and `DT_RUNPATH`, split; may hold `$ORIGIN`.
    pub(super) run_path: Vec<String>,
}

/// What `data` wants; `None` if it is no ELF file at all.
pub(super) fn wants(data: &[u8]) -> Result<Option<Wants>, object::Error> {
    if !data.starts_with(&elf::ELFMAG) {
        return Ok(None);
    }
    let file = ElfFile64::<Endianness>::parse(data)?;
    let endian = file.endian();
    let mut wants = Wants::default();
    for header in file.elf_program_headers() {
        if let Some(interpreter) = header.interpreter(endian, data)? {
            wants.interpreter = Some(text(interpreter));
        }
    }
    let table = file.elf_dynamic_table()?;
    for entry in &table {
        if entry.tag == elf::DT_NEEDED {
            wants.needed.push(text(table.string(entry)?));
        } else if entry.tag == elf::DT_RPATH || entry.tag == elf::DT_RUNPATH {
            wants
                .run_path
                .extend(text(table.string(entry)?).split(':').map(str::to_owned));
        }
    }
    Ok(Some(wants))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_wants_its_loader_and_libc() {
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let wants = wants(&data).unwrap().unwrap();
        assert!(wants.interpreter.unwrap().contains("ld-linux"));
        assert!(
            wants.needed.iter().any(|name| name == "libc.so.6"),
            "{:?}",
            wants.needed
        );
    }

    #[test]
    fn a_script_wants_nothing_and_a_cut_file_is_an_error() {
        assert_eq!(wants(b"#!/bin/sh\n").unwrap(), None);
        assert!(wants(b"\x7fELF\x02\x01\x01").is_err());
    }
}
