/* Live reads of one task, with sessions in any process (I6, I10).
 *
 * Two server processes use one database, which fails over to an asynchronous standby. A task app
 * shows something new now and then. Its agent has a session in one process. A second agent, of a
 * later workspace with a task app of its own, may open a session in either process. Readers call one
 * process: it syncs through its own session or, by the bus, through that of the other process. The
 * bus may lose, repeat and delay notes.
 * The code: reads/reader.py, ingest/syncs.py, ingest/session.py, ingest/sync_table.py,
 * concurrency/singleflight.py, domain/synced.py.
 *
 * Commits obey the rules that sessions.pml checks. Each guard of the code is a macro. -DGUARD=0
 * removes it.
 */
#include "rules.h"

#ifndef SHOWN
#define SHOWN 2
#endif
#ifndef READS
#define READS 2
#endif
#define SESSIONS 2
#ifndef OPENS
#define OPENS 2
#endif
#define PROCESSES 2

#ifndef ENDS
#define ENDS 0
#endif

#ifndef SYNC_RESTS_ON_APPENDS
#define SYNC_RESTS_ON_APPENDS 1
#endif
#ifndef AGENT_SENDS_BEFORE_ANSWER
#define AGENT_SENDS_BEFORE_ANSWER 1
#endif
#ifndef JOINS_ONLY_LATER_SYNCS
#define JOINS_ONLY_LATER_SYNCS 1
#endif
#ifndef SYNCED_HAS_FENCE
#define SYNCED_HAS_FENCE 1
#endif
#ifndef SYNCED_HAS_REVISION
#define SYNCED_HAS_REVISION 1
#endif
#ifndef SYNCED_NAMES_ITS_REQUEST
#define SYNCED_NAMES_ITS_REQUEST 1
#endif
#ifndef KNOWN_HAS_ALL
#define KNOWN_HAS_ALL 1
#endif
#ifndef KNOWN_IS_CURRENT
#define KNOWN_IS_CURRENT 1
#endif
#ifndef CHECKS_AFTER_READ
#define CHECKS_AFTER_READ 1
#endif

/* A row of log_heads. `has[a]`: what is stored of what task app `a` showed. `writer`: the session
 * that raised the fence last. */
typedef Head { byte fence; byte generation; byte revision; byte writer; byte has[2] };
Head heads[HISTORIES];
byte primary = 0;
byte current[PROCESSES];

byte shown[2];  /* by task app */
byte all_shown, opened;
bool has_second;

/* ingest/session.py. Session `a` is that of the agent of task app `a`. */
typedef Session {
    bool is_open;
    byte process; byte fence; byte generation; byte revision;
    byte sent; byte acked;  /* what the agent has sent, and what of it is committed */
    mtype sync;             /* the sync under way */
    byte number;            /* of the sync that began last */
    byte must_have;         /* what the task app showed when it began */
    byte found;             /* what the agent has found there */
    byte rests_on
};
Session sessions[SESSIONS];
mtype = { NONE, ASKED, FOUND, ANSWERED };

/* domain/synced.py: the result of a sync, as its reader got it. `has` is what it brought. */
typedef Synced { bool is_there; byte session; byte fence; byte revision; byte has };
Synced results[READS];
/* Which session each reader waits for, from which number of its syncs on. */
byte asked[READS]; byte from_number[READS]; bool is_waiting[READS];

inline open_session(a, process_) {
    if
    :: heads[current[process_]].generation == current[process_] -> heads[current[process_]].fence++
    :: else ->
        gaps = (current[process_] - heads[current[process_]].generation) * GENERATION_GAP;
        heads[current[process_]].fence = heads[current[process_]].fence + gaps;
        heads[current[process_]].revision = heads[current[process_]].revision + gaps;
        heads[current[process_]].generation = current[process_]
    fi;
    gaps = 0;
    heads[current[process_]].writer = a;
    sessions[a].is_open = true;
    sessions[a].process = process_;
    sessions[a].fence = heads[current[process_]].fence;
    sessions[a].generation = current[process_];
    sessions[a].revision = heads[current[process_]].revision;
    sessions[a].sent = heads[current[process_]].has[a];
    sessions[a].acked = sessions[a].sent
}

/* Readers that wait for it try again, with another session or the next one. */
inline end_session(a) {
    sessions[a].is_open = false;
    sessions[a].sync = NONE;
    sessions[a].fence = 0; sessions[a].generation = 0; sessions[a].revision = 0;
    sessions[a].sent = 0; sessions[a].acked = 0;
    sessions[a].must_have = 0; sessions[a].found = 0; sessions[a].rests_on = 0
}

inline commit(a, history) {
    if
    :: heads[history].fence == sessions[a].fence &&
       heads[history].revision == sessions[a].revision &&
       heads[history].generation == sessions[a].generation ->
        heads[history].revision++;
        heads[history].has[a] = sessions[a].sent;
        sessions[a].revision = heads[history].revision;
        sessions[a].acked = sessions[a].sent
    :: else -> end_session(a)
    fi
}

/* The sync is done: each reader that waits for it has the result. Notes to another process may be
 * late: the reader takes the result when it likes. */
inline synced(a) {
    KEEPS(I6, sessions[a].acked >= sessions[a].must_have);
    for (k : 0 .. READS - 1) {
        if
        :: is_waiting[k] && asked[k] == a && from_number[k] <= sessions[a].number ->
            results[k].is_there = true;
            results[k].session = a;
            results[k].fence = sessions[a].fence;
            results[k].revision = sessions[a].revision;
            results[k].has = sessions[a].acked
        :: else
        fi
    }
    k = 0;
    sessions[a].sync = NONE;
    sessions[a].must_have = 0; sessions[a].found = 0; sessions[a].rests_on = 0
}

#define AGENT(a) \
    atomic { sessions[a].is_open && sessions[a].sent < shown[a] -> sessions[a].sent = shown[a] } \
    :: atomic { sessions[a].is_open && sessions[a].acked < sessions[a].sent -> \
        commit(a, current[sessions[a].process]) } \
    :: atomic { sessions[a].is_open && sessions[a].sync == ASKED -> \
        sessions[a].found = shown[a]; sessions[a].sync = FOUND } \
    :: atomic { sessions[a].is_open && sessions[a].sync == FOUND && \
                (!AGENT_SENDS_BEFORE_ANSWER || sessions[a].sent >= sessions[a].found) -> \
        sessions[a].rests_on = (SYNC_RESTS_ON_APPENDS -> sessions[a].sent : 0); \
        sessions[a].sync = ANSWERED } \
    :: atomic { sessions[a].is_open && sessions[a].sync == ANSWERED && \
                sessions[a].acked >= sessions[a].rests_on -> synced(a) } \
    :: atomic { all_shown < SHOWN -> all_shown++; shown[a]++ } \
    :: atomic { sessions[a].is_open && ends < ENDS -> ends++; end_session(a) }

#define NOTICE(p) \
    atomic { current[p] < primary -> \
        current[p] = primary; \
        if :: sessions[0].is_open && sessions[0].process == p -> end_session(0) :: else fi; \
        if :: sessions[1].is_open && sessions[1].process == p -> end_session(1) :: else fi }

active proctype System() {
    byte k, h, gaps, ends;
end:
    do
    :: AGENT(0)
    :: AGENT(1)
    /* The first agent comes back after each end; the second one comes once. Both to any process. */
    :: atomic { !sessions[0].is_open && opened < OPENS -> opened++; open_session(0, 0) }
    :: atomic { !sessions[0].is_open && opened < OPENS && opened > 0 ->  /* they are alike */
        opened++; open_session(0, 1) }
    :: atomic { !sessions[1].is_open && !has_second -> has_second = true; open_session(1, 0) }
    :: atomic { !sessions[1].is_open && !has_second -> has_second = true; open_session(1, 1) }

    :: atomic { primary < FAILOVERS ->
        h = primary + 1;
        heads[h].fence = heads[primary].fence;
        heads[h].generation = heads[primary].generation;
        heads[h].revision = heads[primary].revision;
        heads[h].writer = heads[primary].writer;
        heads[h].has[0] = heads[primary].has[0];
        heads[h].has[1] = heads[primary].has[1];
        h = 0 }
    :: atomic { primary < FAILOVERS -> primary++ }
    :: NOTICE(0)
    :: NOTICE(1)
    od
}

/* Synced.is_held_by */
#define IS_HELD_BY(fence_, revision_) \
    ((!SYNCED_HAS_FENCE || results[one].fence == fence_) && \
     (!SYNCED_HAS_REVISION || revision_ >= results[one].revision))

inline find_state() {
    known_history = current[process];
    known_fence = heads[known_history].fence;
    known_revision = heads[known_history].revision;
    known_writer = heads[known_history].writer;
    known_has[0] = heads[known_history].has[0];
    known_has[1] = heads[known_history].has[1]
}

inline answer() {
    KEEPS(I10, known_history == current[process]);
    /* What the sync was committed to is in the answer, or at least in the store that it is from. */
    KEEPS(I10, known_has[results[one].session] >= results[one].has ||
               heads[known_history].has[results[one].session] >= results[one].has);
    KEEPS(I6, known_has[known_writer] >= must_have[known_writer]);
    goto answered
}

/* reads/reader.py, read and _live_page; the part of ingest/syncs.py for one reader. */
proctype Reader(byte one; byte process) {
    byte must_have[2], tries;
    byte known_history, known_fence, known_revision, known_writer, known_has[2];
    /* The call arrives. The answer must have what the task app showed now, of the session that the
     * answer's state of the store names. */
    atomic { must_have[0] = shown[0]; must_have[1] = shown[1] }
    atomic { find_state() }
again:
    atomic {
        if
        :: sessions[0].is_open -> asked[one] = 0
        :: sessions[1].is_open -> asked[one] = 1
        :: goto failed  /* AGENT_UNREACHABLE */
        fi;
        is_waiting[one] = true;
        from_number[one] = sessions[asked[one]].number + JOINS_ONLY_LATER_SYNCS
    }
waits:
    do
    :: atomic { !results[one].is_there && sessions[asked[one]].is_open &&
                sessions[asked[one]].sync == NONE ->
        sessions[asked[one]].sync = ASKED;
        sessions[asked[one]].number++;
        sessions[asked[one]].must_have = shown[asked[one]] }
    :: atomic { results[one].is_there -> is_waiting[one] = false; break }
    :: atomic { !SYNCED_NAMES_ITS_REQUEST && results[1 - one].is_there && !results[one].is_there ->
        results[one].is_there = true;
        results[one].session = results[1 - one].session;
        results[one].fence = results[1 - one].fence;
        results[one].revision = results[1 - one].revision;
        results[one].has = results[1 - one].has }
    :: atomic { !results[one].is_there && !sessions[asked[one]].is_open -> goto again }
    :: atomic { goto failed }  /* a time-out, or a note was lost */
    od;
    /* KNOWN: the page of the state that was found before the sync is still in memory. */
    if
    :: atomic { (!KNOWN_HAS_ALL || IS_HELD_BY(known_fence, known_revision)) &&
                (!KNOWN_IS_CURRENT || known_history == current[process]) -> answer() }
    :: true
    fi;
    atomic {
        find_state();
        if
        :: !CHECKS_AFTER_READ || IS_HELD_BY(known_fence, known_revision) -> answer()
        :: else
        fi;
        /* refute: the session ends if it is here, and the reader tries again. */
        if
        :: sessions[results[one].session].is_open &&
           sessions[results[one].session].process == process &&
           sessions[results[one].session].fence == results[one].fence ->
            end_session(results[one].session)
        :: else
        fi;
        results[one].is_there = false; results[one].session = 0; results[one].fence = 0;
        results[one].revision = 0; results[one].has = 0;
        tries++;
        if :: tries < 2 -> goto again :: else -> goto failed fi
    }
failed:
answered:
    atomic {
        is_waiting[one] = false;
        asked[one] = 0; from_number[one] = 0; tries = 0;
        must_have[0] = 0; must_have[1] = 0; known_writer = 0;
        known_history = 0; known_fence = 0; known_revision = 0; known_has[0] = 0; known_has[1] = 0
    }
}

init {
    byte k, p;
    atomic {
        for (k : 0 .. SESSIONS - 1) { sessions[k].sync = NONE }
        for (k : 0 .. READS - 1) {
            if :: p = 0 :: k == 0 -> p = 1 fi;
            run Reader(k, p)
        }
    }
}
