package tasklogs

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

// StatusDetail has the facts that a status is derived from: the first layer that is not
// StatusActive decides.
type StatusDetail struct {
	Build BuildFacts
	Agent AgentFacts
	App   AppFacts
}

// BuildFacts describes the latest workspace build. Number is 0 if there is none.
type BuildFacts struct {
	Number     int32
	Transition BuildTransition
	JobStatus  JobStatus
	Computed   Status
}

// AgentFacts describes the agent of that build.
type AgentFacts struct {
	Lifecycle AgentLifecycle
	Computed  Status
}

// AppFacts describes the task app of that build.
type AppFacts struct {
	Health   AppHealth
	Computed Status
}

func detailOf(message *v1.StatusDetail) StatusDetail {
	build, agent, app := message.GetBuild(), message.GetAgent(), message.GetApp()
	return StatusDetail{
		Build: BuildFacts{
			build.GetNumber(), build.GetTransition(), build.GetJobStatus(), build.GetComputed(),
		},
		Agent: AgentFacts{agent.GetLifecycle(), agent.GetComputed()},
		App:   AppFacts{app.GetHealth(), app.GetComputed()},
	}
}

// LogSummary is the state of a task's log.
type LogSummary struct {
	// Epoch is 0 if nothing was ever stored.
	Epoch int32
	// Entries is the number of stored entries of the current epoch.
	Entries int32
	// Revision grows with each committed change.
	Revision int64
	// Bytes is the size of the stored content of all epochs.
	Bytes int64
	// SnapshotAt is when the stored log was up to date (UTC); zero if it never was.
	SnapshotAt time.Time
}

// Task is one unit of agent work.
type Task struct {
	// ID is a UUID.
	ID          string
	Owner       string
	Name        string
	DisplayName string
	// Prompt is empty if the call did not ask for it.
	Prompt         string
	Standalone     bool
	CreatedAt      time.Time
	Status         Status
	StatusDetail   StatusDetail
	Log            LogSummary
	AgentConnected bool
	Labels         map[string]string
	// Etag names this state of DisplayName and Labels, for [Client.UpdateTask].
	Etag string
}

// FullName returns "owner/name", which every call accepts as the task.
func (t *Task) FullName() string { return t.Owner + "/" + t.Name }

func taskOf(message *v1.Task) *Task {
	log := message.GetLog()
	task := &Task{
		ID:           message.GetId(),
		Owner:        message.GetOwner(),
		Name:         message.GetName(),
		DisplayName:  message.GetDisplayName(),
		Prompt:       message.GetPrompt(),
		Standalone:   message.GetStandalone(),
		CreatedAt:    message.GetCreatedAt().AsTime(),
		Status:       message.GetStatus(),
		StatusDetail: detailOf(message.GetStatusDetail()),
		Log: LogSummary{
			Epoch:    log.GetEpoch(),
			Entries:  log.GetEntries(),
			Revision: log.GetRevision(),
			Bytes:    log.GetBytes(),
		},
		AgentConnected: message.GetAgentConnected(),
		Labels:         message.GetLabels(),
		Etag:           message.GetEtag(),
	}
	if log.GetSnapshotAt() != nil {
		task.Log.SnapshotAt = log.GetSnapshotAt().AsTime()
	}
	return task
}

// NewTask is what [Client.CreateTask] creates.
type NewTask struct {
	// Name matches [a-z0-9][a-z0-9._-]{0,62}.
	Name string
	// Owner: empty is the caller.
	Owner       string
	DisplayName string
	Prompt      string
	// Standalone: there are no reports on builds. The status follows from the agent's stream alone.
	Standalone bool
	Labels     map[string]string
	// RequestID is a UUID that makes it safe to repeat the call: the same task and a fresh token
	// are returned. Empty: a new one for each call.
	RequestID string
}

// CreateTask creates a task, and the token of its agent, which is shown only once. If the
// connection breaks, the call is repeated once.
func (c *Client) CreateTask(
	ctx context.Context, task NewTask,
) (_ *Task, agentToken string, _ error) {
	request := &v1.CreateTaskRequest{
		Name:        task.Name,
		Owner:       task.Owner,
		DisplayName: task.DisplayName,
		Prompt:      task.Prompt,
		Standalone:  task.Standalone,
		Labels:      task.Labels,
		RequestId:   task.RequestID,
	}
	if request.RequestId == "" {
		request.RequestId = newUUID()
	}
	response, err := call(ctx, c, once, c.tasks.CreateTask, request)
	if failure, ok := err.(*Error); ok && failure.Code == codes.Unavailable && failure.Reason == "" {
		response, err = call(ctx, c, once, c.tasks.CreateTask, request)
	}
	if err != nil {
		return nil, "", err
	}
	return taskOf(response.GetTask()), response.GetAgentToken(), nil
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// GetTask returns a task, with its prompt.
func (c *Client) GetTask(ctx context.Context, task string) (*Task, error) {
	request := &v1.GetTaskRequest{Task: task, View: v1.TaskView_TASK_VIEW_FULL}
	found, err := call(ctx, c, repeatable, c.tasks.GetTask, request)
	if err != nil {
		return nil, err
	}
	return taskOf(found), nil
}

// ListOptions says which tasks to list.
type ListOptions struct {
	// Owner: only this owner's. Empty: of all owners that the caller may see.
	Owner string
	// Status: only tasks of this status. 0: of all.
	Status Status
	// Labels: only tasks that have all of these; each is "key=value", or "key" for any value.
	Labels []string
	// Prompts: the tasks have their prompts.
	Prompts bool
	// PageSize is the number of tasks of a page, 0: 100.
	PageSize int32
	// PageToken: begin with this page, [TaskPage.NextPageToken] of an earlier one.
	PageToken string
}

// TaskPage is one page of a list of tasks.
type TaskPage struct {
	Tasks []*Task
	// NextPageToken is empty on the last page.
	NextPageToken string
}

// ListTasksPage returns one page of the tasks, newest first.
func (c *Client) ListTasksPage(ctx context.Context, options *ListOptions) (*TaskPage, error) {
	if options == nil {
		options = &ListOptions{}
	}
	request := &v1.ListTasksRequest{
		Owner:     options.Owner,
		Status:    options.Status,
		Labels:    options.Labels,
		PageSize:  options.PageSize,
		PageToken: options.PageToken,
		View:      v1.TaskView_TASK_VIEW_BASIC,
	}
	if options.Prompts {
		request.View = v1.TaskView_TASK_VIEW_FULL
	}
	response, err := call(ctx, c, repeatable, c.tasks.ListTasks, request)
	if err != nil {
		return nil, err
	}
	page := &TaskPage{NextPageToken: response.GetNextPageToken()}
	for _, task := range response.GetTasks() {
		page.Tasks = append(page.Tasks, taskOf(task))
	}
	return page, nil
}

// ListTasks yields tasks, newest first. Each page is requested when it is needed. After an error
// nothing more is yielded.
func (c *Client) ListTasks(ctx context.Context, options *ListOptions) iter.Seq2[*Task, error] {
	return func(yield func(*Task, error) bool) {
		var next ListOptions
		if options != nil {
			next = *options
		}
		for {
			page, err := c.ListTasksPage(ctx, &next)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, task := range page.Tasks {
				if !yield(task, nil) {
					return
				}
			}
			if page.NextPageToken == "" {
				return
			}
			next.PageToken = page.NextPageToken
		}
	}
}

// TaskUpdate says what [Client.UpdateTask] changes. What is nil does not change.
type TaskUpdate struct {
	DisplayName *string
	// Labels replaces all labels; an empty map removes them.
	Labels map[string]string
	// Etag is that of the task as you read it: an update in between fails with ErrEtagMismatch.
	// Empty: any.
	Etag string
}

// UpdateTask changes the display name, the labels, or both.
func (c *Client) UpdateTask(ctx context.Context, task string, update TaskUpdate) (*Task, error) {
	request := &v1.UpdateTaskRequest{
		Task: task, Labels: update.Labels, Etag: update.Etag, UpdateMask: &fieldmaskpb.FieldMask{},
	}
	if update.DisplayName != nil {
		request.DisplayName = *update.DisplayName
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, "display_name")
	}
	if update.Labels != nil {
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, "labels")
	}
	updated, err := call(ctx, c, once, c.tasks.UpdateTask, request)
	if err != nil {
		return nil, err
	}
	return taskOf(updated), nil
}

// DeleteTask deletes a task and its log permanently; its name and its token are freed at once. A
// task that does not exist is the error ErrTaskNotFound.
func (c *Client) DeleteTask(ctx context.Context, task string) error {
	// Not repeatable: the second call of a pair would not find the task.
	_, err := call(ctx, c, once, c.tasks.DeleteTask, &v1.DeleteTaskRequest{Task: task})
	return err
}

// BuildReport is a report on a workspace build, numbered from 1.
type BuildReport struct {
	Number     int32
	Transition BuildTransition
	JobStatus  JobStatus
}

// ReportBuild reports on a workspace build. It returns the task without its prompt.
func (c *Client) ReportBuild(ctx context.Context, task string, report BuildReport) (*Task, error) {
	request := &v1.ReportBuildRequest{
		Task:        task,
		BuildNumber: report.Number,
		Transition:  report.Transition,
		JobStatus:   report.JobStatus,
	}
	response, err := call(ctx, c, repeatable, c.tasks.ReportBuild, request)
	if err != nil {
		return nil, err
	}
	return taskOf(response.GetTask()), nil
}

// AgentReport is a report on the agent or the task app of the latest build, or on both. What is 0
// does not change.
type AgentReport struct {
	BuildNumber int32
	Lifecycle   AgentLifecycle
	AppHealth   AppHealth
}

// ReportAgent reports on the agent and the task app. It returns the task without its prompt.
func (c *Client) ReportAgent(ctx context.Context, task string, report AgentReport) (*Task, error) {
	request := &v1.ReportAgentRequest{
		Task:        task,
		BuildNumber: report.BuildNumber,
		Lifecycle:   report.Lifecycle,
		AppHealth:   report.AppHealth,
	}
	response, err := call(ctx, c, repeatable, c.tasks.ReportAgent, request)
	if err != nil {
		return nil, err
	}
	return taskOf(response.GetTask()), nil
}

// RotateAgentToken replaces the agent's token; the old one is invalid at once.
func (c *Client) RotateAgentToken(ctx context.Context, task string) (string, error) {
	request := &v1.RotateAgentTokenRequest{Task: task}
	response, err := call(ctx, c, once, c.tasks.RotateAgentToken, request)
	if err != nil {
		return "", err
	}
	return response.GetAgentToken(), nil
}

// ServerInfo is what a server is and can do.
type ServerInfo struct {
	Version string
	// Features: docs/api.md lists the names. What an older server lacks is missing.
	Features   []string
	EntryTypes []EntryType
	Limits     *v1.GetServerInfoResponse_Limits
}

// ServerInfo returns the server's version, features and limits.
func (c *Client) ServerInfo(ctx context.Context) (*ServerInfo, error) {
	response, err := call(ctx, c, repeatable, c.logs.GetServerInfo, &v1.GetServerInfoRequest{})
	if err != nil {
		return nil, err
	}
	return &ServerInfo{
		response.GetVersion(),
		response.GetFeatures(),
		response.GetEntryTypes(),
		response.GetLimits(),
	}, nil
}
