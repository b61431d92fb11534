/* The rules of the design, and the store that the models share.
 *
 * KEEPS(I4, holds) fails with the name of its rule in the message. The names are variables that
 * nothing sets to false.
 */
bool I2 = true, I3 = true, I4 = true, I5 = true, I6 = true, I8 = true, I9 = true, I10 = true;
#define KEEPS(rule, holds) assert(rule && (holds))

/* Histories of the store: the first primary, and one for each failover. A standby that is not
 * promoted yet copies the primary. A former primary stays as it is, and may still answer. */
#ifndef FAILOVERS
#define FAILOVERS 1
#endif
#define HISTORIES (FAILOVERS + 1)

/* By so much the numbers jump: more than any model has changes, or sessions. */
#define GENERATION_GAP 8
#define NUMBERS (GENERATION_GAP * (HISTORIES + 1))
