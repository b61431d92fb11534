/** The stubs of the API tasklogs.v1, for calls that the library does not have. */
export * from "./gen/task_agents_pb.js";
export * from "./gen/task_logs_pb.js";
export * from "./gen/tasks_pb.js";
export * from "./gen/types_pb.js";
