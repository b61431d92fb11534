// The enums of the API, under the names that this library uses. Values that a newer server adds keep
// their number.
export {
  AgentLifecycle,
  AppHealth,
  BuildTransition,
  JobStatus,
  TaskLogType,
  TaskStatus,
} from "./gen/types_pb.js";
export { LogSource } from "./gen/task_logs_pb.js";
