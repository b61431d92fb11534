package tasklogs_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"tasklogs/clients/go/tasklogs"
	v1 "tasklogs/clients/go/tasklogs/v1"
)

// scripted is a server on loopback whose answers a test sets.
type scripted struct {
	v1.UnimplementedTasksServer
	v1.UnimplementedTaskLogsServer

	address string
	getLogs func(*v1.GetTaskLogsRequest) (*v1.GetTaskLogsResponse, error)
	list    func(*v1.ListTasksRequest) (*v1.ListTasksResponse, error)
	create  func(*v1.CreateTaskRequest) (*v1.CreateTaskResponse, error)
	follow  func(*v1.FollowTaskLogsRequest, stream) error

	mu     sync.Mutex
	tokens []string
}

func (s *scripted) note(ctx context.Context) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, values...)
}

func (s *scripted) GetTaskLogs(
	ctx context.Context, request *v1.GetTaskLogsRequest,
) (*v1.GetTaskLogsResponse, error) {
	s.note(ctx)
	return s.getLogs(request)
}

func (s *scripted) ListTasks(
	ctx context.Context, request *v1.ListTasksRequest,
) (*v1.ListTasksResponse, error) {
	return s.list(request)
}

func (s *scripted) CreateTask(
	ctx context.Context, request *v1.CreateTaskRequest,
) (*v1.CreateTaskResponse, error) {
	return s.create(request)
}

func (s *scripted) FollowTaskLogs(
	request *v1.FollowTaskLogsRequest, stream stream,
) error {
	return s.follow(request, stream)
}

func serve(t *testing.T) *scripted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := &scripted{address: listener.Addr().String()}
	server := grpc.NewServer()
	v1.RegisterTasksServer(server, served)
	v1.RegisterTaskLogsServer(server, served)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return served
}

func connect(t *testing.T, address string, options ...tasklogs.Option) *tasklogs.Client {
	t.Helper()
	soon := tasklogs.WithWaits(time.Millisecond, 5*time.Millisecond)
	client, err := tasklogs.NewClient(address, append([]tasklogs.Option{soon}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func refused(code codes.Code, reason tasklogs.Reason, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: string(reason), Domain: "tasklogs.v1"}
	refusal, err := status.New(code, "no").WithDetails(append(details, info)...)
	if err != nil {
		panic(err)
	}
	return refusal.Err()
}

func wait(length time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(length)}
}

func entry(id int32, content string) *v1.TaskLogEntry {
	return &v1.TaskLogEntry{Id: &id, Content: content, Revision: int64(id) + 1}
}
