//! `sidewire top`: shows what a running relay does, like `top`: rates from its metrics, its
//! tenants, and the connections of a tenant that have most to write.

mod scrape;
mod view;

use std::{
    cmp::Reverse,
    collections::HashMap,
    io::{self, IsTerminal},
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    buffer::Buffer,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::Rect,
    text::Span,
    widgets::Widget,
};
use sidewire_client::{AdminClient, CallFailure, ConnectionQuery, LogPosition};
use sidewire_protocol::{TenantName, clock::Clock};
use tokio::{
    signal::unix::SignalKind,
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::{
    scrape::{Scrape, whole},
    view::{TenantRow, TopView, summary},
};
use super::{
    CommandFailure,
    connection_columns::PAGE,
    ingest_access::{AdminArgs, call_failure},
    listener_urls,
    runtime::{self, SignalListener},
    write_result,
};

/// The signals that end it, after which the terminal is as before. Ctrl-c is a key.
const ENDING: [SignalKind; 4] = [
    SignalKind::terminate(),
    SignalKind::interrupt(),
    SignalKind::hangup(),
    SignalKind::quit(),
];

/// Tenants that are asked for at each look.
const TENANTS_MAX: usize = 20;

/// Longest time that a look takes.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Size of what `--once` prints, in characters.
const PRINTED_SIZE: (u16, u16) = (120, 60);

/// Events at the terminal, or looks, that may wait.
const WAITING_MAX: usize = 16;

/// The flags of `sidewire top`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct TopArgs {
    /// The tenant whose connections are shown first. Defaults to the one with most connections.
    #[arg(value_parser = TenantName::parse)]
    pub tenant: Option<TenantName>,
    /// Where the relay is.
    #[command(flatten)]
    pub access: AdminArgs,
    /// The URL of the relay's ops listener, or unix:PATH for a Unix socket.
    /// Defaults to the listener in --config, or http://127.0.0.1:3002 without --config.
    #[arg(long, value_name = "URL", verbatim_doc_comment)]
    pub ops_url: Option<String>,
    /// Time between two looks.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = interval_between_looks
    )]
    pub interval: Duration,
    /// Print one look as text, with the rates of one interval, and end.
    #[arg(long)]
    pub once: bool,
}

const HELP: &str = "Examples:
  sidewire top --key-file ingest.key
  sidewire top acme --config /etc/sidewire/sidewire.toml --key-file ingest.key
  sidewire top --once --interval 5s

Keys: up and down select a tenant, q and Esc end.
Without an ingest key that the relay accepts, only the metrics are shown.
Of the tenants, the 20 with most connections are listed, and of the connections of one tenant, the
slowest of the first 1,000. `ops.tenant_labels` bounds how many tenants the metrics name.";

fn interval_between_looks(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("is shorter than 100ms".to_owned());
    }
    Ok(interval)
}

/// Shows the relay until the user ends it.
pub(super) fn run(args: &TopArgs) -> Result<(), CommandFailure> {
    if args.once {
        return runtime::run_client(|| async {
            let text = look_once(args, &Clock::system()).await?;
            write_result(&mut io::stdout(), &text).map(drop)
        });
    }
    if !io::stdout().is_terminal() {
        return Err(CommandFailure::new(
            "standard output is not a terminal; print one look with --once",
        ));
    }
    let looker = Looker::new(args, Clock::system())?;
    // Nothing is logged, which would go over the screen.
    let runtime = runtime::build_runtime()?;
    let mut screen = Screen::open()?;
    runtime.block_on(show(looker, args.interval, &mut screen))
}

/// Looks twice, one interval apart, and returns the second look as text.
///
/// # Errors
///
/// When the relay cannot be reached or refuses.
pub async fn look_once(args: &TopArgs, clock: &Clock) -> Result<String, CommandFailure> {
    let mut looker = Looker::new(args, clock.clone())?;
    looker.look().await?;
    sleep(args.interval).await;
    looker.look().await?;
    let (width, height) = PRINTED_SIZE;
    Ok(rendered(&looker.view, width, height))
}

/// The terminal while it shows a screen. Dropping it restores what was there before.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, CommandFailure> {
        ratatui::try_init().map(Self).map_err(|error| {
            // It may have succeeded in part.
            ratatui::restore();
            CommandFailure::new(format!("cannot use the terminal: {error}"))
        })
    }

    fn draw(&mut self, view: &TopView) -> Result<(), CommandFailure> {
        self.0
            .draw(|frame| frame.render_widget(view, frame.area()))
            .map(drop)
            .map_err(|error| CommandFailure::new(format!("cannot draw: {error}")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Returns a view as lines of text of this size, without what is empty at the end.
fn rendered(view: &TopView, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    view.render(area, &mut buffer);
    let lines = (0..height).map(|y| {
        let (mut line, mut x) = (String::new(), 0);
        while let Some(cell) = buffer.cell((x, y)).filter(|_| x < width) {
            line.push_str(cell.symbol());
            // A wide character takes the cell behind it as well.
            x += u16::try_from(Span::raw(cell.symbol()).width().max(1)).unwrap_or(1);
        }
        line.trim_end().to_owned()
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    text.trim_end().to_owned()
}

/// Draws each look, until the user ends it. The looks are a task of their own, so that the user can
/// end it while the relay does not answer.
async fn show(looker: Looker, period: Duration, screen: &mut Screen) -> Result<(), CommandFailure> {
    let mut events = read_events()?;
    let mut signals = SignalListener::listen(&ENDING)?;
    let (steps, next_steps) = mpsc::channel(WAITING_MAX);
    let (views, mut next_views) = mpsc::channel(1);
    let mut view = looker.view.clone();
    tokio::spawn(looker.look_again_and_again(period, next_steps, views));
    loop {
        screen.draw(&view)?;
        tokio::select! {
            biased;
            () = signals.next_signal() => return Ok(()),
            event = events.recv() => match event {
                Some(Ok(event)) => match Action::from_event(&event) {
                    Action::End => return Ok(()),
                    // A step is lost if that many wait.
                    Action::Select(step) => drop(steps.try_send(step)),
                    Action::Redraw => {}
                },
                Some(Err(error)) => {
                    let message = format!("cannot read from the terminal: {error}");
                    return Err(CommandFailure::new(message));
                }
                None => return Ok(()),
            },
            Some(next) = next_views.recv() => view = next,
        }
    }
}

/// What the user wants.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    End,
    Select(isize),
    Redraw,
}

impl Action {
    fn from_event(event: &Event) -> Self {
        let Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press,
            ..
        }) = event
        else {
            return Self::Redraw;
        };
        match code {
            KeyCode::Char('q') | KeyCode::Esc => Self::End,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Self::End,
            KeyCode::Up | KeyCode::Char('k') => Self::Select(-1),
            KeyCode::Down | KeyCode::Char('j') => Self::Select(1),
            _ => Self::Redraw,
        }
    }
}

/// Starts a thread that reads what happens at the terminal, since waiting for that blocks. It ends
/// with the process, or after an error.
fn read_events() -> Result<mpsc::Receiver<io::Result<Event>>, CommandFailure> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    thread::Builder::new()
        .name("terminal".to_owned())
        .spawn(move || {
            loop {
                let event = event::read();
                let is_last = event.is_err();
                if sender.blocking_send(event).is_err() || is_last {
                    return;
                }
            }
        })
        .map_err(|error| CommandFailure::new(format!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

/// Asks the relay, and keeps what is needed for rates.
struct Looker {
    ops: AdminClient,
    ingest: AdminClient,
    clock: Clock,
    /// The last scrape.
    last: Option<Scrape>,
    /// The heads of the tenants' logs at the last look.
    heads: HashMap<String, LogPosition>,
    /// True if the user has selected the tenant.
    is_chosen: bool,
    view: TopView,
}

impl Looker {
    fn new(args: &TopArgs, clock: Clock) -> Result<Self, CommandFailure> {
        let config = args.access.load_config()?;
        let ops = match &args.ops_url {
            Some(url) => url.clone(),
            None => listener_urls::ops_url(&config)?,
        };
        Ok(Self {
            ops: AdminClient::new(&ops, None).map_err(call_failure)?,
            ingest: args.access.client(&config)?,
            clock,
            last: None,
            heads: HashMap::new(),
            is_chosen: args.tenant.is_some(),
            view: TopView {
                summary: vec![format!("asking {ops}")],
                selected: args.tenant.as_ref().map(TenantName::to_string),
                ..TopView::default()
            },
        })
    }

    /// Sends a view at each period, and after each step by which the user moves the selection.
    async fn look_again_and_again(
        mut self,
        period: Duration,
        mut steps: mpsc::Receiver<isize>,
        views: mpsc::Sender<TopView>,
    ) {
        let mut looks = interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(step) = steps.recv() => {
                    self.select(step);
                    let looked = timeout(LOOK_TIMEOUT, self.look_at_connections());
                    // The next look says what is wrong.
                    drop(looked.await);
                }
                _ = looks.tick() => self.view.stale = self.look_in_time().await,
            }
            if views.send(self.view.clone()).await.is_err() {
                return;
            }
        }
    }

    /// Looks at the relay. Returns why that failed, if it did.
    async fn look_in_time(&mut self) -> Option<String> {
        let reason = match timeout(LOOK_TIMEOUT, self.look()).await {
            Ok(Ok(())) => return None,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("no answer within {LOOK_TIMEOUT:?}"),
        };
        Some(format!("NOT CURRENT: {reason}"))
    }

    async fn look(&mut self) -> Result<(), CommandFailure> {
        let text = self.ops.metrics().await.map_err(call_failure)?;
        let scrape = Scrape::parse(&text);
        let seconds = self
            .last
            .as_ref()
            .map_or(0.0, |last| (scrape.at - last.at).as_secs_f64());
        self.view.now = self.clock.unix_seconds();
        self.view.summary = summary(self.last.as_ref(), &scrape, self.view.now);
        self.look_at_tenants(&scrape, seconds).await;
        self.look_at_connections().await;
        self.last = Some(scrape);
        Ok(())
    }

    async fn look_at_tenants(&mut self, scrape: &Scrape, seconds: f64) {
        let tenants = scrape.by_label("sidewire_tenant_connections", "tenant");
        let mut tenants: Vec<_> = tenants.filter(|(name, _)| name != "other").collect();
        tenants.sort_by(|(a, x), (b, y)| f64::total_cmp(y, x).then_with(|| a.cmp(b)));
        tenants.truncate(TENANTS_MAX);
        self.view.tenants_notice = None;
        let (mut heads, mut rows, mut is_answered) = (HashMap::new(), Vec::new(), true);
        for (name, connections) in tenants {
            let mut info = None;
            if is_answered {
                match self.ingest.tenant(&name).await {
                    Ok(found) => info = Some(found),
                    // The tenant may have gone, and the key may allow some tenants only.
                    Err(CallFailure::Refused(problem)) if matches!(problem.status, 403 | 404) => {}
                    Err(error) => {
                        is_answered = false;
                        let reason = call_failure(error).to_string();
                        self.view.tenants_notice = Some(reason);
                    }
                }
            }
            let mut row = TenantRow {
                connections: whole(connections),
                users: info.as_ref().map(|info| info.users),
                topics: info.as_ref().map(|info| info.topics),
                head: info.map(|info| info.log.head),
                event_rate: None,
                name,
            };
            row.set_event_rate(self.heads.get(&row.name), seconds);
            if let Some(head) = &row.head {
                heads.insert(row.name.clone(), head.clone());
            }
            rows.push(row);
        }
        self.heads = heads;
        self.view.tenants = rows;
        if !self.is_chosen {
            let first = self.view.tenants.first();
            self.view.selected = first.map(|tenant| tenant.name.clone());
        }
    }

    /// Selects the tenant that is this many rows below the selected one, or the first one if none
    /// of the listed ones is.
    fn select(&mut self, step: isize) {
        let last = self.view.tenants.len().saturating_sub(1);
        let selected = self.view.selected_index();
        let index = selected.map_or(0, |index| index.saturating_add_signed(step).min(last));
        if let Some(tenant) = self.view.tenants.get(index) {
            self.view.selected = Some(tenant.name.clone());
            self.is_chosen = true;
        }
    }

    async fn look_at_connections(&mut self) {
        self.view.connections.clear();
        self.view.connections_notice = None;
        let Some(tenant) = &self.view.selected else {
            return;
        };
        if self.view.tenants_notice.is_some() {
            self.view.connections_notice = Some("not asked for".to_owned());
            return;
        }
        let query = ConnectionQuery {
            limit: PAGE,
            ..ConnectionQuery::default()
        };
        match self.ingest.connections(tenant, &query).await {
            Ok(page) => {
                self.view.is_part = page.next.is_some();
                self.view.connections = page.connections;
                let connections = &mut self.view.connections;
                connections.sort_by_key(|it| Reverse((it.outbox.bytes, it.topics)));
            }
            Err(error) => {
                self.view.connections_notice = Some(call_failure(error).to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Action {
        Action::from_event(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn keys_select_and_end() {
        let plain = KeyModifiers::NONE;
        assert_eq!(key(KeyCode::Char('q'), plain), Action::End);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Action::End);
        assert_eq!(key(KeyCode::Char('c'), plain), Action::Redraw);
        assert_eq!(key(KeyCode::Down, plain), Action::Select(1));
        assert_eq!(key(KeyCode::Up, plain), Action::Select(-1));
        assert_eq!(Action::from_event(&Event::Resize(80, 24)), Action::Redraw);
    }

    #[test]
    fn an_interval_is_at_least_100_ms() {
        assert!(interval_between_looks("99ms").is_err());
        assert!(interval_between_looks("soon").is_err());
        let shortest = interval_between_looks("100ms");
        assert_eq!(shortest, Ok(Duration::from_millis(100)));
    }
}
