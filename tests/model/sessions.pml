/* Sessions, fences, generations and commits of one task (I2, I3, I4, I9, I10).
 *
 * Two server processes use one database, which fails over to an asynchronous standby. Several agents
 * with the token of the task connect, one after the other or at the same time, to any process.
 * The code: store/sessions.py, store/log_writes.py, store/generations.py, ingest/sessions.py,
 * ingest/session.py, ingest/batches.py, ingest/session_audit.py.
 *
 * Each guard of the code is a macro. -DGUARD=0 removes it.
 */
#include "rules.h"

#ifndef SESSIONS
#define SESSIONS 3
#endif
#ifndef CHANGES
#define CHANGES 3
#endif
#define PROCESSES 2

/* Postgres does not tell its generation: a managed one. */
#ifndef WITHHELD
#define WITHHELD 0
#endif

#ifndef RAISES_FENCE
#define RAISES_FENCE 1
#endif
#ifndef FENCE_JUMPS
#define FENCE_JUMPS 1
#endif
#ifndef REVISION_JUMPS
#define REVISION_JUMPS 1
#endif
#ifndef GAP_PER_TIMELINE
#define GAP_PER_TIMELINE 1
#endif
#ifndef COMPARES_FENCE
#define COMPARES_FENCE 1
#endif
#ifndef COMPARES_BASE_REVISION
#define COMPARES_BASE_REVISION 1
#endif
#ifndef COMPARES_GENERATION_OF_HEAD
#define COMPARES_GENERATION_OF_HEAD 1
#endif
#ifndef COMPARES_GENERATION_OF_CONNECTION
#define COMPARES_GENERATION_OF_CONNECTION 1
#endif
#ifndef REVISION_FOR_EACH_CHANGE
#define REVISION_FOR_EACH_CHANGE 1
#endif
#ifndef ACKS_AFTER_COMMIT
#define ACKS_AFTER_COMMIT 1
#endif
#ifndef UNDECIDED_IS_NOT_ACKED
#define UNDECIDED_IS_NOT_ACKED 1
#endif
#ifndef FENCED_ENDS_SESSION
#define FENCED_ENDS_SESSION 1
#endif
#ifndef GENERATION_ENDS_SESSIONS
#define GENERATION_ENDS_SESSIONS 1
#endif
#ifndef CHECKS_HANDSHAKE
#define CHECKS_HANDSHAKE 1
#endif
#ifndef KEEPS_HIGHER_FENCE
#define KEEPS_HIGHER_FENCE 1
#endif
#ifndef REFUSES_FORMER_PRIMARY
#define REFUSES_FORMER_PRIMARY 1
#endif
#ifndef AUDITS
#define AUDITS 1
#endif

mtype = { COMMITTED, FENCED, MOVED, UNDECIDED };

/* A row of log_heads. `writer` and `content` are not stored: which session raised the fence last,
 * and which commit was the last, by a number that no other commit has. */
typedef Head { byte fence; byte generation; byte revision; byte writer; byte content };
Head heads[HISTORIES];
byte primary = 0;

/* Generations.current of each process: which history its connections lead to. */
byte current[PROCESSES];
byte newest[PROCESSES];
#define TOLD(history) (WITHHELD -> 0 : (history))

/* One object of ingest/session.py each. */
typedef Session {
    byte process;
    bool is_known;    /* in Sessions._open; it may have ended */
    bool is_open;
    byte fence; byte generation; byte revision;
    byte content;     /* what the agent and the session know to be stored */
    byte received; byte handed_over; byte acked;
    byte stored;      /* changes that were executed in a commit */
    bool in_flight;
    byte began        /* the order in which fences were raised */
};
Session sessions[SESSIONS];

byte changes = 0, commits = 0, raised = 0;
bool revision_used[NUMBERS];
bool fence_used[NUMBERS];

inline end_session(one) { sessions[one].is_open = false }

/* store/sessions.py, _RAISE_FENCE: fence and Welcome in one transaction. */
#define GAPS(from, to) (GAP_PER_TIMELINE -> (to) - (from) : 1)
inline open_session(one, history) {
    if
    :: heads[history].generation == TOLD(history) ->
        heads[history].fence = heads[history].fence + RAISES_FENCE
    :: else ->
        gaps = GAPS(heads[history].generation, TOLD(history));
        heads[history].fence = heads[history].fence + (FENCE_JUMPS -> gaps * GENERATION_GAP : 1);
        heads[history].revision =
            heads[history].revision + (REVISION_JUMPS -> gaps * GENERATION_GAP : 0);
        heads[history].generation = TOLD(history)
    fi;
    KEEPS(I4, WITHHELD || !fence_used[heads[history].fence]);
    fence_used[heads[history].fence] = true;
    heads[history].writer = one;
    sessions[one].fence = heads[history].fence;
    sessions[one].generation = heads[history].generation;
    sessions[one].revision = heads[history].revision;
    sessions[one].content = heads[history].content;
    raised++;
    sessions[one].began = raised;
    gaps = 0
}

/* ingest/sessions.py, _begin and _replace: nothing is awaited between them. */
inline replace(one) {
    other = 0;
    do
    :: other < SESSIONS && other != one && sessions[other].is_known &&
       sessions[other].process == sessions[one].process -> break
    :: other < SESSIONS && !(other != one && sessions[other].is_known &&
       sessions[other].process == sessions[one].process) -> other++
    :: other == SESSIONS -> break
    od;
    if
    :: CHECKS_HANDSHAKE && sessions[one].generation != TOLD(current[sessions[one].process]) -> skip
    :: else ->
        if
        :: other < SESSIONS && KEEPS_HIGHER_FENCE && sessions[other].fence > sessions[one].fence ->
            KEEPS(I4, WITHHELD || sessions[other].began > sessions[one].began)
        :: else ->
            if
            :: other < SESSIONS ->
                KEEPS(I4, WITHHELD || sessions[other].began < sessions[one].began);
                end_session(other);
                sessions[other].is_known = false
            :: else
            fi;
            sessions[one].is_open = true;
            sessions[one].is_known = true
        fi
    fi;
    other = 0
}

/* store/log_writes.py, _COMMIT. The draft numbers the changes after the base revision. */
inline execute(one, history) {
    if
    :: COMPARES_GENERATION_OF_CONNECTION && sessions[one].generation != TOLD(history) ->
        outcome = MOVED
    :: else ->
        if
        :: COMPARES_GENERATION_OF_HEAD && heads[history].generation != sessions[one].generation ->
            outcome = MOVED
        :: else ->
            if
            :: COMPARES_FENCE && heads[history].fence != sessions[one].fence -> outcome = FENCED
            :: else ->
                if
                :: COMPARES_BASE_REVISION && heads[history].revision != sessions[one].revision ->
                    outcome = MOVED
                :: else -> write(one, history)
                fi
            fi
        fi
    fi
}

inline write(one, history) {
    KEEPS(I4, WITHHELD || heads[history].writer == one);
    KEEPS(I4, heads[history].content == sessions[one].content);
    KEEPS(I9, history >= newest[sessions[one].process]);
    revision = sessions[one].revision;
    number = sessions[one].handed_over - sessions[one].stored;
    do
    :: number > 0 ->
        revision = (REVISION_FOR_EACH_CHANGE -> revision + 1 : sessions[one].revision + 1);
        KEEPS(I2, revision > heads[history].revision);
        heads[history].revision = revision;
        KEEPS(I9, WITHHELD || !revision_used[revision]);
        revision_used[revision] = true;
        number--
    :: else -> break
    od;
    commits++;
    heads[history].content = commits;
    sessions[one].stored = sessions[one].handed_over;
    outcome = COMMITTED;
    revision = 0
}

/* ingest/session.py, committed, lost and undecided. */
inline settle(one) {
    if
    :: outcome == COMMITTED || (outcome == UNDECIDED && !UNDECIDED_IS_NOT_ACKED) ||
       (outcome == FENCED && !FENCED_ENDS_SESSION) ->
        if
        :: sessions[one].is_open ->
            sessions[one].revision = sessions[one].revision + in_commit;
            sessions[one].content = commits_after;
            ack(one, sessions[one].handed_over)
        :: else
        fi
    :: else -> end_session(one)
    fi;
    sessions[one].in_flight = false;
    in_commit = 0; commits_after = 0
}

inline ack(one, sequence) {
    sessions[one].acked = sequence;
    KEEPS(I3, sessions[one].acked <= sessions[one].stored)
}

proctype Stream(byte one) {
    byte history, other, gaps, revision, number, in_commit, commits_after;
    mtype outcome;
    atomic {
        if
        :: sessions[one].process = 0
        :: one > 0 -> sessions[one].process = 1  /* the processes are alike */
        fi;
        history = current[sessions[one].process];
        open_session(one, history)
    }
    /* The others may start now: the task has had a session. */
    if :: one + 1 < SESSIONS -> run Stream(one + 1) :: else fi;
    atomic { replace(one) }
    do
    :: atomic { sessions[one].is_open && changes < CHANGES ->
        changes++;
        sessions[one].received++;
        if :: !ACKS_AFTER_COMMIT -> ack(one, sessions[one].received) :: else fi }
    :: atomic { sessions[one].is_open && !sessions[one].in_flight &&
                sessions[one].received > sessions[one].handed_over ->
        in_commit = sessions[one].received - sessions[one].handed_over;
        sessions[one].handed_over = sessions[one].received;
        sessions[one].in_flight = true };
        /* The batch waits for a connection, or the task's rows are held. */
        atomic {
            history = current[sessions[one].process];
            if
            :: execute(one, history)
            :: outcome = UNDECIDED  /* the connection was lost before the statement */
            fi;
            commits_after = heads[history].content
        }
        atomic {
            if
            :: true
            :: outcome == COMMITTED -> outcome = UNDECIDED  /* or after it */
            fi;
            settle(one)
        }
    :: sessions[one].is_open -> atomic { end_session(one) }; break  /* the stream ends */
    :: !sessions[one].is_open -> break
    od;
    sessions[one].is_known = false  /* _finish */
}

#define IS_OUTDATED(one) \
    (heads[current[sessions[one].process]].fence != sessions[one].fence || \
     heads[current[sessions[one].process]].revision < sessions[one].revision)

/* A process notices that the store has another history, and audits its sessions. */
inline observe(process, history) {
    current[process] = history;
    other = 0;
    do
    :: other < SESSIONS ->
        if
        :: GENERATION_ENDS_SESSIONS && !WITHHELD && sessions[other].process == process -> end_session(other)
        :: else
        fi;
        other++
    :: else -> break
    od;
    other = 0;
    if :: newest[process] < history -> newest[process] = history :: else fi
}

#define AUDIT(one) \
    atomic { AUDITS && sessions[one].is_open && sessions[one].process == process && \
             IS_OUTDATED(one) -> end_session(one) }

proctype Process(byte process) {
    byte other, next;
end:
    do
    :: atomic { current[process] < primary ->
        next = current[process] + 1;
        do :: next < primary -> next++ :: break od;
        observe(process, next);
        next = 0 }
    :: atomic { !REFUSES_FORMER_PRIMARY && current[process] > 0 ->
        observe(process, current[process] - 1) }
    :: AUDIT(0)
#if SESSIONS > 1
    :: AUDIT(1)
#endif
#if SESSIONS > 2
    :: AUDIT(2)
#endif
    od
}

/* Standbys copy the primary, now and then. The next one is promoted, whatever it lacks. */
active proctype Postgres() {
    byte standby;
    do
    :: atomic { primary < FAILOVERS ->
        standby = primary + 1;
        do :: standby < FAILOVERS -> standby++ :: break od;
        heads[standby].fence = heads[primary].fence;
        heads[standby].generation = heads[primary].generation;
        heads[standby].revision = heads[primary].revision;
        heads[standby].writer = heads[primary].writer;
        heads[standby].content = heads[primary].content;
        standby = 0 }
    :: atomic { primary < FAILOVERS -> primary++ }
    :: primary == FAILOVERS -> break
    od
}

/* What must hold in each state. These steps are possible only where it does not hold. */
#define OPEN_IN_A_FORMER_GENERATION(one) \
    (sessions[one].is_open && sessions[one].generation != TOLD(current[sessions[one].process]))
#define OPEN_WITHOUT_ITS_LOG(one) \
    (sessions[one].is_open && !sessions[one].in_flight && !WITHHELD && \
     current[sessions[one].process] == primary && !(AUDITS && IS_OUTDATED(one)) && \
     (heads[primary].writer != one || heads[primary].content != sessions[one].content))
#define RULES(one) \
    atomic { OPEN_IN_A_FORMER_GENERATION(one) -> KEEPS(I9, false) } \
    :: atomic { OPEN_WITHOUT_ITS_LOG(one) -> KEEPS(I10, false) }

active proctype Rules() {
end:
    do
    :: RULES(0)
#if SESSIONS > 1
    :: RULES(1)
#endif
#if SESSIONS > 2
    :: RULES(2)
#endif
    od
}

init {
    atomic { run Process(0); run Process(1); run Stream(0) }
}
