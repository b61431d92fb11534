-- Distributes the tables of TaskLogs over the workers of a Citus cluster, by task.
--
-- Run it once, as the owner of the tables, in the database that `tasklogs serve` has made its schema
-- in, while no server runs: psql -v ON_ERROR_STOP=1 -1 -f distribute.sql DATABASE_URL
-- The rows that are there are moved. docs/citus.md has the rest.

-- A unique index needs the column by which its table is distributed. Without it, two calls of
-- CreateTask at the same time, with one request id and two names, create two tasks.
DROP INDEX tasks_by_request;
CREATE INDEX tasks_by_request ON tasks (owner, request_id)
 WHERE request_id IS NOT NULL AND deleted_at IS NULL;

-- Every server of the cluster has all rows of this one.
SELECT create_reference_table('processes');

SELECT create_distributed_table('tasks', 'task_id', colocate_with => 'none');
SELECT create_distributed_table('log_heads', 'task_id', colocate_with => 'tasks');
SELECT create_distributed_table('log_entries', 'task_id', colocate_with => 'tasks');
SELECT create_distributed_table('log_tail_parts', 'task_id', colocate_with => 'tasks');
SELECT create_distributed_table('log_events', 'task_id', colocate_with => 'tasks');

SELECT create_distributed_table('task_names', 'owner', colocate_with => 'none');
