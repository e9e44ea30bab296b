//! Throughput on two worker threads and on one. On a machine of two cores, clients and service need the same cores: then
//! the processor time of a request tells more than throughput, since it must not grow with the threads.

use super::{Ask, Contestant, Kind, Load, Row, SMALL, Scenario, Section, Speech, Stage};

pub struct Workers;

impl Scenario for Workers {
    fn name(&self) -> &'static str {
        "workers"
    }

    fn about(&self) -> &'static str {
        "the plain hop on two worker threads and on one, contestants on whichever core comes free"
    }

    /// Banyan and the floor, each twice.
    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        let threaded = all.iter().filter(|who| matches!(who.kind, Kind::Banyan | Kind::Floor));
        threaded
            .flat_map(|who| [who.clone(), Contestant { name: format!("{}-2", who.name), threads: 2, ..who.clone() }])
            .collect()
    }

    fn is_pinned(&self) -> bool {
        false
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }

    fn measure(&self, stage: &Stage) -> anyhow::Result<Section> {
        let mut section = stage.capacity(&self.load(stage))?;
        let names: Vec<String> = section.rows.iter().map(|row: &Row| row.party.clone()).collect();
        for one in &names {
            section.ratio("rps", &format!("{one}-2"), one);
            section.ratio("cpu_us", &format!("{one}-2"), one);
        }
        stage.peaks(&mut section);
        section.notes.push(
            "`busy` is processor time by wall time: a contestant on two threads that is busy less than 1.9 was held up by \
            clients and service, which share the machine's cores with it."
                .to_owned(),
        );
        Ok(section)
    }
}
