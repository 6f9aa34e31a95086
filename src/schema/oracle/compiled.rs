//! Compiles random schemas from memory.

use std::{fs, path::Path, sync::LazyLock};

use prost_reflect::DescriptorPool;
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

use super::{ENVELOPE, LEGACY_FILE, SchemaText};
use crate::schema::Schema;

const MAIN_FILE: &str = "random.proto";

/// The relay's own files, by the names under which they are imported.
static RELAYS: LazyLock<Vec<(&str, File)>> = LazyLock::new(|| {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    ["sidewire/v1/options.proto", "sidewire/v1/relay.proto"]
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(proto.join(name)).unwrap();
            (name, File::from_source(name, &text).unwrap())
        })
        .collect()
});

struct InMemory(Vec<File>);

impl FileResolver for InMemory {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let mut own = self.0.iter().filter(|file| file.name() == name);
        let mut relays = RELAYS.iter().filter(|(it, _)| *it == name);
        let found = own.next().or_else(|| relays.next().map(|(_, file)| file));
        found
            .cloned()
            .ok_or_else(|| protox::Error::file_not_found(name))
    }
}

impl SchemaText {
    /// The descriptors of both files and of what they import.
    ///
    /// # Panics
    ///
    /// When the text is not valid, which is a fault of its generator.
    #[must_use]
    pub fn pool(&self) -> DescriptorPool {
        let file = |name, text| File::from_source(name, text).unwrap_or_else(|it| self.fail(&it));
        let files = vec![file(MAIN_FILE, &self.main), file(LEGACY_FILE, &self.legacy)];
        let mut resolver = ChainFileResolver::new();
        resolver.add(InMemory(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        if let Err(error) = compiler.open_file(MAIN_FILE) {
            self.fail::<()>(&error);
        }
        compiler.descriptor_pool()
    }

    /// The schema.
    ///
    /// # Panics
    ///
    /// When the relay does not take it.
    #[must_use]
    pub fn schema(&self) -> Schema {
        Schema::compile(&self.pool(), ENVELOPE).unwrap_or_else(|error| self.fail(&error))
    }

    fn fail<T>(&self, error: &dyn std::fmt::Debug) -> T {
        panic!("{error:?}\n{}\n{}", self.main, self.legacy)
    }
}
