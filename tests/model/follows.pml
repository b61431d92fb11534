/* A follower of one task that resumes with its cursor (I5, I8, I9).
 *
 * One server process has the follower, and the feed that reads the store for it. Writers in this
 * process and in others commit. Their notes wake the feed. Between processes the bus may lose, repeat
 * and delay them. The database fails over to an asynchronous standby. The client is cut off at any
 * time, and resumes in the same process or, which is the same as a new feed, in another one.
 * The code: reads/follower.py, reads/feed.py, store/log_changes.py, store/records.py.
 *
 * The writers obey the rules that sessions.pml checks. A change is a new entry, a change of the tail
 * or its withdrawal. Each guard of the code is a macro. -DGUARD=0 removes it.
 */
#include "rules.h"

#ifndef ENTRIES
#define ENTRIES 2
#endif
#ifndef CHANGES
#define CHANGES 3
#endif
#ifndef RESUMES
#define RESUMES 2
#endif

#ifndef COMMITS_BEFORE_NOTE
#define COMMITS_BEFORE_NOTE 1
#endif
#ifndef REVISION_JUMPS
#define REVISION_JUMPS 1
#endif
#ifndef GAP_PER_TIMELINE
#define GAP_PER_TIMELINE 1
#endif
#ifndef COVERS_BORDERS
#define COVERS_BORDERS 1
#endif
#ifndef EXPIRES_IN_GAP
#define EXPIRES_IN_GAP 1
#endif
#ifndef EXPIRES_ABOVE_HEAD
#define EXPIRES_ABOVE_HEAD 1
#endif
#ifndef CHECKS_CURSOR_AT_START
#define CHECKS_CURSOR_AT_START 1
#endif
#ifndef CHECKS_CURSOR_OF_LAG
#define CHECKS_CURSOR_OF_LAG 1
#endif
#ifndef CHECKS_REVISION_OF_FEED
#define CHECKS_REVISION_OF_FEED 1
#endif
#ifndef GENERATION_ENDS_FOLLOWS
#define GENERATION_ENDS_FOLLOWS 1
#endif
#ifndef CHECKS_GENERATION_AT_START
#define CHECKS_GENERATION_AT_START 1
#endif
#ifndef COMMIT_BUILDS_ON_FEED
#define COMMIT_BUILDS_ON_FEED 1
#endif
#ifndef NO_COMMIT_DURING_READ
#define NO_COMMIT_DURING_READ 1
#endif
#ifndef STEP_BEGINS_AT_FOLLOWER
#define STEP_BEGINS_AT_FOLLOWER 1
#endif
#ifndef DELTA_ONLY_ON_ITS_BASE
#define DELTA_ONLY_ON_ITS_BASE 1
#endif
#ifndef POLLS
#define POLLS 1
#endif
#ifndef RESUMES_AT_CURSOR
#define RESUMES_AT_CURSOR 1
#endif

/* A log: its head, and its entries with the revision of their last change. Revision 0: there never
 * was one. Content 0: it was withdrawn. No two changes have the same content. */
#define GAPS 3
typedef Log {
    byte generation; byte revision; byte entries;
    byte lost_after[GAPS]; byte gaps;
    byte changed[ENTRIES]; byte content[ENTRIES]
};
Log logs[HISTORIES];
byte primary = 0;
byte current = 0;  /* Generations.current of the follower's process */
byte changes = 0;

#define HAS_LOST(history, of) \
    ((EXPIRES_ABOVE_HEAD && (of) > logs[history].revision) || \
     (EXPIRES_IN_GAP && (IN_GAP(history, of, 0) || IN_GAP(history, of, 1) || IN_GAP(history, of, 2))))
#define IN_GAP(history, of, number) \
    (logs[history].gaps > number && (of) > logs[history].lost_after[number] && \
     (of) < logs[history].lost_after[number] + GENERATION_GAP)

/* Changes of entries, at most one of each, up to a revision. `base`: that of the growth of a tail. */
typedef Changes {
    byte history; byte revision; byte base;
    byte changed[ENTRIES]; byte content[ENTRIES]
};

/* A commit of this process that was executed, and of which nobody was told yet. */
bool is_committed; byte base_revision; byte changed_entry;
Changes commit;
/* A note of another process that is still on its way. */
bool has_note;

/* reads/feed.py */
bool has_feed, is_ended, is_expired, is_woken, is_reading;
byte feed_revision, held_revision, held_entry;
Changes read;
bool read_is_lost;
bool has_step; byte step_after;
Changes step;

/* reads/follower.py: one stream */
mtype = { AWAY, STARTING, FOLLOWING, ASKING, LAGGING, SENDING };
mtype stream = AWAY;
byte stream_revision, sent_revision, sent_entry;
byte start_history, start_revision;
bool start_is_lost, ready_is_lost;
Changes ready;

/* The client. Cursor 0: none. */
byte cursor, cuts;
byte held_changed[ENTRIES]; byte held_content[ENTRIES];

/* --- the store --- */

inline clear(these) {
    these.history = 0; these.revision = 0; these.base = 0;
    for (k : 0 .. ENTRIES - 1) { these.changed[k] = 0; these.content[k] = 0 }
    k = 0
}

/* store/log_changes.py, since */
inline since(from, history_, these) {
    clear(these);
    these.history = history_;
    these.revision = logs[history_].revision;
    for (k : 0 .. ENTRIES - 1) {
        if
        :: logs[history_].changed[k] > from ->
            these.changed[k] = logs[history_].changed[k];
            these.content[k] = logs[history_].content[k]
        :: else
        fi
    }
    k = 0
}

inline copy(from, to) {
    logs[to].generation = logs[from].generation;
    logs[to].revision = logs[from].revision;
    logs[to].entries = logs[from].entries;
    logs[to].gaps = logs[from].gaps;
    for (k : 0 .. GAPS - 1) { logs[to].lost_after[k] = logs[from].lost_after[k] }
    for (k : 0 .. ENTRIES - 1) {
        logs[to].changed[k] = logs[from].changed[k];
        logs[to].content[k] = logs[from].content[k]
    }
    k = 0
}

/* The first writer of a generation: store/sessions.py, _RAISE_FENCE. */
inline raise(history) {
    k = logs[history].generation;
    do
    :: k < history ->
        if
        :: REVISION_JUMPS ->
            if
            :: COVERS_BORDERS && k > logs[history].generation ->  /* the border of two gaps is lost, too */
                logs[history].lost_after[logs[history].gaps] = logs[history].revision - 1;
                logs[history].gaps++
            :: else
            fi;
            logs[history].lost_after[logs[history].gaps] = logs[history].revision;
            logs[history].gaps++;
            logs[history].revision = logs[history].revision + GENERATION_GAP
        :: else
        fi;
        if :: GAP_PER_TIMELINE -> k++ :: else -> k = history fi
    :: else -> break
    od;
    logs[history].generation = history;
    k = 0
}

/* A commit with one change, of `changed_entry`. An entry that was withdrawn keeps its place here. */
#define CAN_WRITE(history) \
    (logs[history].entries < ENTRIES || logs[history].content[ENTRIES - 1])
inline write(history) {
    if :: is_withdrawal = true :: is_withdrawal = false fi;
    changes++;
    logs[history].revision++;
    if
    :: logs[history].entries < ENTRIES ->
        changed_entry = logs[history].entries;
        logs[history].entries++;
        logs[history].content[changed_entry] = changes
    :: logs[history].entries > 0 && logs[history].content[logs[history].entries - 1] ->
        changed_entry = logs[history].entries - 1;
        logs[history].content[changed_entry] = (is_withdrawal -> 0 : changes)
    fi;
    logs[history].changed[changed_entry] = logs[history].revision;
    is_withdrawal = false
}

/* --- the feed --- */

inline add_step(these) {
    has_step = true;
    step_after = feed_revision;
    clear(step);
    step.history = these.history;
    step.revision = these.revision;
    step.base = 0;
    for (k : 0 .. ENTRIES - 1) {
        step.changed[k] = these.changed[k];
        step.content[k] = these.content[k];
        if
        :: these.changed[k] && these.content[k] && these.changed[k] == these.revision ->
            if
            :: held_revision && held_entry == k -> step.base = held_revision
            :: else
            fi;
            held_revision = these.changed[k];
            held_entry = k
        :: else
        fi
    }
    k = 0;
    feed_revision = these.revision
}

inline forget_step() { has_step = false; step_after = 0; clear(step) }

inline close_feed() {
    has_feed = false; is_ended = false; is_expired = false; is_woken = false; is_reading = false;
    feed_revision = 0; held_revision = 0; held_entry = 0; read_is_lost = false;
    clear(read);
    forget_step()
}

/* Feed.committed: the note of a commit of this process. */
inline committed() {
    if
    :: has_feed && !is_ended && commit.revision > feed_revision ->
        if
        :: (NO_COMMIT_DURING_READ && is_reading) ||
           (COMMIT_BUILDS_ON_FEED && base_revision != feed_revision) -> is_woken = true
        :: else -> add_step(commit)
        fi
    :: else
    fi
}

/* --- the client --- */

/* Everything up to `reached` that is in the log must be what the client holds. */
#define HOLDS(history, reached, number) \
    (logs[history].changed[number] > (reached) || \
     (logs[history].changed[number] == held_changed[number] && \
      logs[history].content[number] == held_content[number]))
#if ENTRIES == 2
#define HOLDS_ALL(history, reached) (HOLDS(history, reached, 0) && HOLDS(history, reached, 1))
#else
#define HOLDS_ALL(history, reached) HOLDS(history, reached, 0)
#endif

inline forget_all() {
    cursor = 0;
    for (k : 0 .. ENTRIES - 1) { held_changed[k] = 0; held_content[k] = 0 }
    k = 0
}

inline leave() {
    stream = AWAY;
    stream_revision = 0; sent_revision = 0; sent_entry = 0; start_history = 0;
    start_revision = 0; start_is_lost = false; ready_is_lost = false;
    clear(ready)
}

/* The message of entry `number`: the change with the lowest revision that is not sent. */
inline send(number) {
    KEEPS(I8, ready.changed[number] > cursor);
    KEEPS(I5, logs[ready.history].changed[number] >= ready.changed[number]);
    KEEPS(I5, logs[ready.history].changed[number] > ready.changed[number] ||
              logs[ready.history].content[number] == ready.content[number]);
    if
    :: ready.base && (!DELTA_ONLY_ON_ITS_BASE ||
                      (sent_revision == ready.base && sent_entry == number)) ->
        KEEPS(I8, sent_revision == ready.base && sent_entry == number);
        KEEPS(I8, held_changed[number] == ready.base)
    :: else
    fi;
    held_changed[number] = ready.changed[number];
    held_content[number] = ready.content[number];
    cursor = ready.changed[number];
    sent_revision = (ready.content[number] -> ready.changed[number] : sent_revision);
    sent_entry = (ready.content[number] -> number : sent_entry);
    KEEPS(I8, HOLDS_ALL(ready.history, cursor));
    ready.changed[number] = 0; ready.content[number] = 0
}

#define IS_NEXT(number, other) \
    (ready.changed[number] && \
     (!ready.changed[other] || ready.changed[number] <= ready.changed[other]))

#define IS_AT_REST \
    (stream == FOLLOWING && has_feed && !is_ended && !is_reading && !is_woken && !is_committed && \
     !has_note && current == primary && stream_revision >= feed_revision && \
     !(POLLS && feed_revision != logs[primary].revision))

active proctype System() {
    byte k, h;
    bool is_withdrawal;
end:
    do
    /* Postgres */
    :: atomic { primary < FAILOVERS ->
        h = primary + 1;
        do :: h < FAILOVERS -> h++ :: break od;
        copy(primary, h); h = 0 }
    :: atomic { primary < FAILOVERS -> primary++ }

    /* Writers of other processes. One that has not noticed writes to a former primary. */
    :: atomic { changes < CHANGES ->
        do :: h < primary -> h++ :: break od;
        if
        :: logs[h].generation != h -> raise(h)
        :: logs[h].generation == h && CAN_WRITE(h) ->
            write(h); changed_entry = 0; has_note = true
        :: else
        fi;
        h = 0 }
    /* The bus: a note may come twice, late or never. */
    :: atomic { has_note && has_feed && !is_woken -> is_woken = true }
    :: atomic { has_note -> has_note = false }

    /* A writer of this process. */
    :: atomic { changes < CHANGES && !is_committed ->
        if
        :: logs[current].generation != current -> raise(current)
        :: logs[current].generation == current && !CAN_WRITE(current) -> skip
        :: else ->
            base_revision = logs[current].revision;
            is_committed = true;
            if
            :: !COMMITS_BEFORE_NOTE ->  /* it is refused after the note */
                changes++;
                commit.history = current; commit.revision = base_revision + 1;
                commit.changed[0] = base_revision + 1; commit.content[0] = changes;
                committed(); is_committed = false
            :: true ->
                write(current);
                commit.history = current;
                commit.revision = logs[current].revision;
                commit.changed[changed_entry] = commit.revision;
                commit.content[changed_entry] = logs[current].content[changed_entry];
                changed_entry = 0
            fi
        fi }
    :: atomic { is_committed ->
        committed(); is_committed = false; base_revision = 0; clear(commit) }

    /* The process notices another generation. */
    :: atomic { current < primary ->
        current++;
        do :: current < primary -> current++ :: break od;
        if :: has_feed && GENERATION_ENDS_FOLLOWS -> is_ended = true :: else fi }

    /* Feed._read: the statement, then its result. */
    :: atomic { has_feed && !is_ended && !is_reading && is_woken ->
        is_woken = false; is_reading = true;
        since(feed_revision, current, read);
        read_is_lost = HAS_LOST(current, feed_revision) }
    :: atomic { has_feed && is_reading ->
        is_reading = false;
        if
        :: CHECKS_REVISION_OF_FEED && read_is_lost -> is_ended = true; is_expired = true
        :: else ->
            if
            :: read.revision > feed_revision -> add_step(read)
            :: else -> forget_step()
            fi
        fi;
        read_is_lost = false; clear(read) }
    :: atomic { POLLS && has_feed && !is_ended && !is_reading && !is_woken &&
                feed_revision != logs[current].revision -> is_woken = true }
    :: atomic { has_feed && stream == AWAY -> close_feed() }

    /* Another follower begins meanwhile, and opens the feed. */
    :: atomic { stream == STARTING && (!has_feed || is_ended) ->
        if :: has_feed -> close_feed() :: else fi;
        has_feed = true; is_woken = true; feed_revision = logs[current].revision }

    /* Follows.following and _start: the statement, then its result. */
    :: atomic { stream == AWAY ->
        stream = STARTING;
        start_history = current;
        start_revision = logs[current].revision;
        start_is_lost = cursor && HAS_LOST(current, cursor) }
    :: atomic { stream == STARTING ->
        if
        :: CHECKS_GENERATION_AT_START && start_history != current -> leave()
        :: else ->
            if
            :: CHECKS_CURSOR_AT_START && start_is_lost -> forget_all(); leave()
            :: else ->
                KEEPS(I9, start_history != current || HOLDS_ALL(start_history, cursor));
                if :: has_feed && is_ended -> close_feed() :: else fi;
                if
                :: !has_feed ->
                    has_feed = true; is_woken = true; feed_revision = start_revision
                :: else
                fi;
                h = (RESUMES_AT_CURSOR -> cursor : (cursor -> cursor + 1 : 0));
                leave();
                stream_revision = h; h = 0;
                stream = FOLLOWING
            fi
        fi }

    /* _Follower.messages */
    :: atomic { stream == FOLLOWING && is_ended ->
        if :: is_expired -> forget_all() :: else fi;
        close_feed(); leave() }
    :: atomic { stream == FOLLOWING && !is_ended && stream_revision < feed_revision ->
        if
        :: has_step && (step_after == stream_revision || !STEP_BEGINS_AT_FOLLOWER) &&
           stream_revision < step.revision ->
            ready.history = step.history; ready.revision = step.revision; ready.base = step.base;
            for (k : 0 .. ENTRIES - 1) {
                ready.changed[k] = step.changed[k]; ready.content[k] = step.content[k]
            }
            k = 0;
            stream = SENDING
        :: else -> stream = ASKING  /* for a connection */
        fi }
    :: atomic { stream == ASKING ->
        since(stream_revision, current, ready);
        ready_is_lost = HAS_LOST(current, stream_revision);
        stream = LAGGING }
    :: atomic { stream == LAGGING ->
        if
        :: CHECKS_CURSOR_OF_LAG && ready_is_lost -> forget_all(); leave()
        :: else -> ready_is_lost = false; stream = SENDING
        fi }
    :: atomic { stream == SENDING && IS_NEXT(0, ENTRIES - 1) -> send(0) }
#if ENTRIES == 2
    :: atomic { stream == SENDING && IS_NEXT(1, 0) && !IS_NEXT(0, 1) -> send(1) }
#endif
    :: atomic { stream == SENDING && !ready.changed[0] && !ready.changed[ENTRIES - 1] ->
        stream_revision = ready.revision;
        clear(ready);
        stream = FOLLOWING }
    /* CaughtUp and Progress carry the stream's own revision. The feed's end is noticed later. */
    :: atomic { stream == FOLLOWING && cursor != stream_revision ->
        KEEPS(I8, stream_revision > cursor);
        cursor = stream_revision }
    /* The client is cut off. Another follower may keep the feed. */
    :: atomic { stream != AWAY && cuts < RESUMES -> cuts++; leave() }

    /* What must hold in each state: this step is possible only where it does not hold. */
    :: atomic { IS_AT_REST && (stream_revision != logs[primary].revision ||
                               !HOLDS_ALL(primary, stream_revision)) -> KEEPS(I8, false) }
    od
}
