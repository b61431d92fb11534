package tasklogs

import v1 "tasklogs/clients/go/tasklogs/v1"

// Values that a newer server adds keep their number.
type (
	// Status is a task's status. It decides where reads come from.
	Status = v1.TaskStatus
	// EntryType says who or what an entry is from.
	EntryType = v1.TaskLogType
	// Source says whether a read brings the stored log up to date first.
	Source = v1.LogSource
	// BuildTransition is what a workspace build does.
	BuildTransition = v1.BuildTransition
	// JobStatus is how far a workspace build is.
	JobStatus = v1.JobStatus
	// AgentLifecycle is the state of the agent in a workspace.
	AgentLifecycle = v1.AgentLifecycle
	// AppHealth is the health of the task app in a workspace.
	AppHealth = v1.AppHealth
)

// The statuses.
const (
	StatusPending      = v1.TaskStatus_TASK_STATUS_PENDING
	StatusInitializing = v1.TaskStatus_TASK_STATUS_INITIALIZING
	StatusActive       = v1.TaskStatus_TASK_STATUS_ACTIVE
	StatusPaused       = v1.TaskStatus_TASK_STATUS_PAUSED
	StatusError        = v1.TaskStatus_TASK_STATUS_ERROR
	StatusUnknown      = v1.TaskStatus_TASK_STATUS_UNKNOWN
)

// The types of entries.
const (
	Input      = v1.TaskLogType_TASK_LOG_TYPE_INPUT
	Output     = v1.TaskLogType_TASK_LOG_TYPE_OUTPUT
	ToolCall   = v1.TaskLogType_TASK_LOG_TYPE_TOOL_CALL
	ToolResult = v1.TaskLogType_TASK_LOG_TYPE_TOOL_RESULT
	Thought    = v1.TaskLogType_TASK_LOG_TYPE_THOUGHT
	Notice     = v1.TaskLogType_TASK_LOG_TYPE_NOTICE
)

// The sources of a read.
const (
	// SourceByStatus is the default: the live log of an active task, else the stored one.
	SourceByStatus = v1.LogSource_LOG_SOURCE_UNSPECIFIED
	// SourceLive reads only the live log.
	SourceLive = v1.LogSource_LOG_SOURCE_LIVE
	// SourceSnapshot reads the stored log as it is, in every status.
	SourceSnapshot = v1.LogSource_LOG_SOURCE_SNAPSHOT
)
