//! A cluster for tests. It applies the records of each decision to its image, and prints records
//! and responses.

use std::{fmt::Write, sync::Arc};

use uuid::Uuid;

use crate::{
    base::config::Config,
    controller::*,
    metadata::{ConfigResource, PartitionImage, records::*},
};

pub fn settings() -> Settings {
    let keys = [("node.id", "1"), ("process.roles", "broker,controller")];
    let keys = keys.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::new(keys.into(), "host");
    Settings::new(&Arc::new(arc_swap::ArcSwap::from_pointee(config.unwrap())))
}

pub fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor, ..NewTopic::default() }
}

pub fn registration(id: i32, incarnation: u128) -> Registration {
    Registration {
        broker_id: id,
        incarnation_id: Uuid::from_u128(incarnation),
        log_dirs: vec![dir(id)],
        ..Registration::default()
    }
}

pub fn dir(broker: i32) -> Uuid {
    Uuid::from_u128(broker as u128 + 2_000)
}

pub struct Script {
    pub image: Image,
    pub volatile: VolatileState,
    pub settings: Settings,
    pub random: Random,
    pub now_ms: i64,
    pub text: String,
}

impl Script {
    /// A cluster of unfenced brokers, each with its rack.
    pub fn new(brokers: &[(i32, Option<&str>)]) -> Self {
        let mut script = Self {
            image: Image::default(),
            volatile: VolatileState::default(),
            settings: settings(),
            random: Random::new(7),
            now_ms: 0,
            text: String::new(),
        };
        script.commit(&features::bootstrap(1));
        for (id, rack) in brokers {
            let rack = rack.map(str::to_owned);
            let registration = Registration { rack, ..registration(*id, *id as u128 + 1_000) };
            script.run(|cx| registration::register(cx, &registration)).unwrap();
            script.beat(*id);
        }
        script.text.clear();
        script
    }

    /// A cluster of so many brokers, with ids from 1 and without racks.
    pub fn of(brokers: i32) -> Self {
        let brokers: Vec<_> = (1..=brokers).map(|id| (id, None)).collect();
        Self::new(&brokers)
    }

    /// Creates a topic `a` of one partition with these replicas.
    pub fn with_topic(mut self, replicas: &[i32]) -> Self {
        let assignments = vec![(0, replicas.to_vec())];
        self.create(NewTopic { assignments, ..topic("a", -1, -1) });
        self.text.clear();
        self
    }

    pub fn commit(&mut self, records: &[MetadataRecord]) {
        for record in records {
            writeln!(self.text, "  {}", self.print(record)).unwrap();
            self.image.apply(record);
            self.image.offset += 1;
        }
    }

    pub fn run<T>(&mut self, decide: impl FnOnce(&mut Context<'_>) -> Decision<T>) -> T {
        let (image, settings) = (&self.image.clone(), &self.settings.clone());
        let (volatile, random, now_ms) = (&mut self.volatile, &mut self.random, self.now_ms);
        let mut cx = Context { image, settings, volatile, random, now_ms };
        let Decision { records, response } = decide(&mut cx);
        timers::arm(&mut cx, &records);
        self.commit(&records);
        response
    }

    pub fn note<T>(&mut self, result: Result<T, ControllerError>) {
        match result {
            Ok(_) => self.text.push_str("-> ok\n"),
            Err(error) => {
                let debug = format!("{error:?}");
                let name = debug.split(['(', ' ']).next().unwrap().to_owned();
                let message = error.message().unwrap_or("null".into());
                writeln!(self.text, "-> {name}: {message}").unwrap();
            }
        }
    }

    pub fn create(&mut self, topic: NewTopic) {
        let mut results = self.run(|cx| topics::create(cx, &[topic]));
        self.note(results.remove(0).1);
    }

    pub fn grow(&mut self, name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>) {
        let wanted = NewPartitions { name: name.into(), count, assignments };
        let mut results = self.run(|cx| topics::create_partitions(cx, &[wanted]));
        self.note(results.remove(0).1);
    }

    pub fn alter(&mut self, resource: &ConfigResource, key: &str, op: ConfigOp) {
        let change = (resource.clone(), vec![(key.to_owned(), op)]);
        let mut results = self.run(|cx| configs::alter_incrementally(cx, &[change]));
        self.note(results.remove(0).1);
    }

    /// Sets a config key of topic `a`, without printing anything.
    pub fn set(&mut self, key: &str, value: &str) {
        self.alter(&ConfigResource::topic("a"), key, ConfigOp::Set(value.into()));
        self.text.clear();
    }

    pub fn register(&mut self, registration: &Registration) {
        let result = self.run(|cx| registration::register(cx, registration));
        if let Ok(epoch) = result {
            writeln!(self.text, "-> epoch {epoch}").unwrap();
        } else {
            self.note(result);
        }
    }

    pub fn epoch(&self, broker: i32) -> i64 {
        self.image.broker(broker).map_or(-1, |it| it.broker_epoch)
    }

    /// A heartbeat of a broker that has applied all metadata.
    pub fn heartbeat(&self, broker: i32) -> Heartbeat {
        Heartbeat {
            broker_id: broker,
            broker_epoch: self.epoch(broker),
            current_metadata_offset: self.image.offset,
            ..Heartbeat::default()
        }
    }

    pub fn send(&mut self, heartbeat: &Heartbeat) {
        let result = self.run(|cx| heartbeat::process(cx, heartbeat));
        if let Ok(it) = result {
            let caught_up = if it.is_caught_up { "caught up" } else { "behind" };
            let fenced = if it.is_fenced { "fenced" } else { "unfenced" };
            let stop = if it.should_shut_down { ", shut down" } else { "" };
            writeln!(self.text, "-> {caught_up}, {fenced}{stop}").unwrap();
        } else {
            self.note(result);
        }
    }

    pub fn beat(&mut self, broker: i32) {
        self.send(&self.heartbeat(broker));
    }

    pub fn shut_down(&mut self, broker: i32) {
        self.send(&Heartbeat { want_shut_down: true, ..self.heartbeat(broker) });
    }

    pub fn gone(&mut self, broker: i32) {
        self.run(|cx| registration::gone(cx, broker, None));
    }

    /// Advances the time by `ms` and runs what is due.
    pub fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        while let Some(()) = self.run_due() {}
    }

    fn run_due(&mut self) -> Option<()> {
        self.run(|cx| match timers::due(cx) {
            Some((_, due)) => Decision { records: due.records, response: Some(()) },
            None => Decision { records: Vec::new(), response: None },
        })
    }

    pub fn partition(&self) -> &PartitionImage {
        self.image.partition("a", 0).unwrap()
    }

    /// A request for this ISR by the leader of `a-0`, with current epochs.
    pub fn isr_change(&self, isr: &[i32]) -> AlterPartition {
        let state = self.partition();
        AlterPartition {
            partition: 0,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: isr.iter().map(|id| (*id, self.epoch(*id))).collect(),
            leader_recovery_state: 0,
        }
    }

    pub fn ask_isr(&mut self, broker: i32, change: AlterPartition) {
        let id = self.image.topic("a").unwrap().id;
        let epoch = self.epoch(broker);
        let asked = [(id, vec![change])];
        match self.run(|cx| alter_partition::alter(cx, broker, epoch, &asked)) {
            Ok(mut altered) => {
                let result = altered.remove(0).1.remove(0).1;
                self.note(result);
            }
            Err(error) => self.note::<()>(Err(error)),
        }
    }

    pub fn alter_isr(&mut self, isr: &[i32]) {
        let leader = self.partition().leader;
        self.ask_isr(leader, self.isr_change(isr));
    }

    pub fn reassign(&mut self, replicas: Option<&[i32]>) {
        let asked = Reassignment { partition: 0, replicas: replicas.map(<[i32]>::to_vec) };
        let topics = [("a".to_owned(), vec![asked])];
        let mut results = self.run(|cx| reassignment::alter(cx, &topics, true));
        self.note(results.remove(0).1.remove(0).1);
    }

    pub fn elect(&mut self, kind: ElectionType) {
        let asked = vec![("a".to_owned(), vec![0])];
        let mut results = self.run(|cx| elections::elect(cx, kind, Some(&asked)));
        self.note(results.remove(0).1.remove(0).1);
    }

    /// Prints the state of `a-0`.
    pub fn show(&mut self) {
        let it = self.partition().clone();
        writeln!(
            self.text,
            "a-0 leader {} in {}, isr {:?} elr {:?} last {:?}",
            it.leader, it.leader_epoch, it.isr, it.elr, it.last_known_elr
        )
        .unwrap();
    }

    #[track_caller]
    pub fn expect(&mut self, expected: &str) {
        let expected: Vec<_> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let text = std::mem::take(&mut self.text);
        let found: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(found, expected, "\n{text}");
    }

    fn print(&self, record: &MetadataRecord) -> String {
        use MetadataRecord as R;
        match record {
            R::Topic(it) => format!("topic {}", it.name),
            R::Partition(it) => format!(
                "partition {} replicas {:?} isr {:?} leader {} dirs {}",
                it.partition_id,
                it.replicas,
                it.isr,
                it.leader,
                numbers(&it.directories)
            ),
            R::PartitionChange(it) => self.print_change(it),
            R::Config(it) => {
                let value = it.value.as_deref().unwrap_or("null");
                format!("config {}:{} {}={value}", it.resource_type, it.resource_name, it.name)
            }
            R::FeatureLevel(it) => format!("feature {}={}", it.name, it.feature_level),
            R::RegisterBroker(it) => {
                let fenced = if it.fenced { "fenced" } else { "unfenced" };
                format!("register {} epoch {} {fenced}", it.broker_id, it.broker_epoch)
            }
            R::UnregisterBroker(it) => format!("unregister {}", it.broker_id),
            R::BrokerRegistrationChange(it) => print_broker(it),
            R::ProducerIds(it) => format!("producer ids from {}", it.next_producer_id),
            other => other.name().to_owned(),
        }
    }

    /// Prints only the fields that change.
    fn print_change(&self, it: &PartitionChangeRecord) -> String {
        let topic = self.image.topic_by_id(it.topic_id).map_or("?", |topic| &topic.name);
        let mut text = format!("{topic}-{}", it.partition_id);
        if it.leader != -2 {
            write!(text, " leader {}", it.leader).unwrap();
        }
        for (name, ids) in [
            ("isr", &it.isr),
            ("replicas", &it.replicas),
            ("removing", &it.removing_replicas),
            ("adding", &it.adding_replicas),
            ("elr", &it.eligible_leader_replicas),
            ("last", &it.last_known_elr),
        ] {
            if let Some(ids) = ids {
                write!(text, " {name} {ids:?}").unwrap();
            }
        }
        if let Some(directories) = &it.directories {
            write!(text, " dirs {}", numbers(directories)).unwrap();
        }
        match it.leader_recovery_state {
            -1 => {}
            0 => text.push_str(" recovered"),
            _ => text.push_str(" recovering"),
        }
        text
    }
}

fn print_broker(it: &BrokerRegistrationChangeRecord) -> String {
    let mut text = format!("broker {}", it.broker_id);
    match it.fenced {
        1 => text.push_str(" fenced"),
        -1 => text.push_str(" unfenced"),
        _ => {}
    }
    if it.in_controlled_shutdown == 1 {
        text.push_str(" shutting down");
    }
    if !it.log_dirs.is_empty() {
        write!(text, " dirs {}", numbers(&it.log_dirs)).unwrap();
    }
    if let Some(cordoned) = &it.cordoned_log_dirs {
        write!(text, " cordoned {}", numbers(cordoned)).unwrap();
    }
    text
}

fn numbers(ids: &[Uuid]) -> String {
    ids.iter().map(|id| id.as_u128().to_string()).collect::<Vec<_>>().join(",")
}
