package tasklogs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tasklogs/clients/go/tasklogs"
	v1 "tasklogs/clients/go/tasklogs/v1"
)

const task = "local/demo"

func TestAReadContinuesPageByPageAfterABlip(t *testing.T) {
	server := serve(t)
	asked := []string{}
	server.getLogs = func(r *v1.GetTaskLogsRequest) (*v1.GetTaskLogsResponse, error) {
		asked = append(asked, r.GetPageToken())
		switch len(asked) {
		case 1:
			return &v1.GetTaskLogsResponse{
				Logs: []*v1.TaskLogEntry{entry(0, "a")}, NextPageToken: "2", Cursor: "c",
			}, nil
		case 2:
			return nil, refused(codes.Unavailable, tasklogs.ErrStoreUnavailable, wait(0))
		default:
			return &v1.GetTaskLogsResponse{Logs: []*v1.TaskLogEntry{entry(1, "b")}}, nil
		}
	}
	log, err := connect(t, server.address).Get(bounded(t), task, nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := log.All(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || entries[1].Content != "b" || log.Cursor != "c" {
		t.Errorf("entries %v, cursor %q", entries, log.Cursor)
	}
	if !slices.Equal(asked, []string{"", "2", "2"}) {
		t.Errorf("asked for the pages %q", asked)
	}
}

func TestAnErrorHasItsReasonAndDetails(t *testing.T) {
	server := serve(t)
	server.getLogs = func(*v1.GetTaskLogsRequest) (*v1.GetTaskLogsResponse, error) {
		return nil, refused(
			codes.InvalidArgument, tasklogs.ErrInvalidFields,
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "task", Description: "is empty"},
			}},
			&errdetails.RequestInfo{RequestId: "r1"},
		)
	}
	_, err := connect(t, server.address).Get(bounded(t), "", nil)

	var failure *tasklogs.Error
	if !errors.As(err, &failure) || !errors.Is(err, tasklogs.ErrInvalidFields) {
		t.Fatalf("the error is %v", err)
	}
	if errors.Is(err, tasklogs.ErrTaskNotFound) {
		t.Error("it is another reason, too")
	}
	want := []tasklogs.FieldViolation{{Field: "task", Description: "is empty"}}
	if !slices.Equal(failure.Violations, want) || failure.RequestID != "r1" {
		t.Errorf("the error is %+v", failure)
	}
	if failure.Retry() != tasklogs.RetryNo || status.Code(err) != codes.InvalidArgument {
		t.Errorf("retry %v, code %v", failure.Retry(), status.Code(err))
	}
	if got := failure.Error(); got != "InvalidArgument: no (INVALID_FIELDS)" {
		t.Errorf("it says %q", got)
	}
}

func TestOnlyWhatMayBeRepeatedIsRepeated(t *testing.T) {
	server := serve(t)
	reads, creates := 0, 0
	busy := refused(codes.ResourceExhausted, tasklogs.ErrStoreBusy, wait(0))
	server.list = func(*v1.ListTasksRequest) (*v1.ListTasksResponse, error) {
		reads++
		return nil, busy
	}
	server.create = func(*v1.CreateTaskRequest) (*v1.CreateTaskResponse, error) {
		creates++
		return nil, busy
	}
	client := connect(t, server.address)

	_, err := client.ListTasksPage(bounded(t), nil)
	if !errors.Is(err, tasklogs.ErrStoreBusy) || reads != 6 {
		t.Errorf("%d reads, then %v", reads, err)
	}
	_, _, err = client.CreateTask(bounded(t), tasklogs.NewTask{Name: "x"})
	if !errors.Is(err, tasklogs.ErrStoreBusy) || creates != 1 {
		t.Errorf("%d creations, then %v", creates, err)
	}
}

func TestAWaitThatIsLongerThanTheTimeOutEndsTheCallWithTheCause(t *testing.T) {
	server := serve(t)
	server.getLogs = func(*v1.GetTaskLogsRequest) (*v1.GetTaskLogsResponse, error) {
		return nil, refused(codes.Unavailable, tasklogs.ErrDraining, wait(time.Hour))
	}
	client := connect(t, server.address, tasklogs.WithTimeout(30*time.Second))

	began := time.Now()
	_, err := client.Get(bounded(t), task, nil)

	if !errors.Is(err, tasklogs.ErrDraining) || time.Since(began) > 20*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestACallThatIsCreatedTwiceHasOneRequestID(t *testing.T) {
	server := serve(t)
	ids := []string{}
	server.create = func(r *v1.CreateTaskRequest) (*v1.CreateTaskResponse, error) {
		ids = append(ids, r.GetRequestId())
		if len(ids) == 1 {
			return nil, status.Error(codes.Unavailable, "the connection broke")
		}
		return &v1.CreateTaskResponse{
			Task: &v1.Task{Owner: "o", Name: "x"}, AgentToken: "secret",
		}, nil
	}
	created, token, err := connect(t, server.address).CreateTask(
		bounded(t), tasklogs.NewTask{Name: "x"},
	)
	if err != nil || created.FullName() != "o/x" || token != "secret" {
		t.Fatalf("%v, %q, %v", created, token, err)
	}
	if len(ids) != 2 || ids[0] != ids[1] || len(ids[0]) != 36 {
		t.Errorf("the ids are %q", ids)
	}
}

func TestAListIsReadPageByPageAsFarAsItIsUsed(t *testing.T) {
	server := serve(t)
	asked := 0
	server.list = func(r *v1.ListTasksRequest) (*v1.ListTasksResponse, error) {
		asked++
		if r.GetOwner() != "o" || r.GetView() != v1.TaskView_TASK_VIEW_BASIC {
			t.Errorf("the request is %v", r)
		}
		return &v1.ListTasksResponse{
			Tasks:         []*v1.Task{{Name: fmt.Sprint(2 * asked)}, {Name: fmt.Sprint(2*asked + 1)}},
			NextPageToken: fmt.Sprint(asked),
		}, nil
	}
	client := connect(t, server.address)
	names := []string{}
	for task, err := range client.ListTasks(bounded(t), &tasklogs.ListOptions{Owner: "o"}) {
		if err != nil {
			t.Fatal(err)
		}
		if names = append(names, task.Name); len(names) == 3 {
			break
		}
	}
	if !slices.Equal(names, []string{"2", "3", "4"}) || asked != 2 {
		t.Errorf("the names are %q after %d pages", names, asked)
	}
}

func TestATokenThatIsRefusedIsAskedForOnceMore(t *testing.T) {
	server := serve(t)
	server.getLogs = func(*v1.GetTaskLogsRequest) (*v1.GetTaskLogsResponse, error) {
		if len(server.tokens)%2 == 1 {
			return nil, refused(codes.Unauthenticated, tasklogs.ErrTokenExpired)
		}
		return &v1.GetTaskLogsResponse{}, nil
	}
	asked := 0
	client := connect(t, server.address, tasklogs.WithTokenSource(
		func(context.Context) (string, error) {
			asked++
			return fmt.Sprintf("t%d\n", asked), nil
		},
	))
	if _, err := client.Get(bounded(t), task, nil); err != nil {
		t.Fatal(err)
	}
	fixed := connect(t, server.address, tasklogs.WithToken("fixed"))
	_, err := fixed.Get(bounded(t), task, nil)

	if !errors.Is(err, tasklogs.ErrTokenExpired) {
		t.Errorf("a token that cannot change: %v", err)
	}
	if want := []string{"Bearer t1", "Bearer t2", "Bearer fixed"}; !slices.Equal(server.tokens, want) {
		t.Errorf("the tokens are %q", server.tokens)
	}
}

func TestTheErrorOfATokenSourceIsTheCallers(t *testing.T) {
	broken := errors.New("the vault is sealed")
	client := connect(t, serve(t).address, tasklogs.WithTokenSource(
		func(context.Context) (string, error) { return "", broken },
	))
	if _, err := client.Get(bounded(t), task, nil); !errors.Is(err, broken) {
		t.Errorf("a read: %v", err)
	}
	for _, err := range client.Follow(bounded(t), task, nil) {
		if !errors.Is(err, broken) {
			t.Errorf("a follow: %v", err)
		}
	}
}

func TestNoServerIsUnavailable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()

	_, err = connect(t, address).Get(bounded(t), task, nil)

	if status.Code(err) != codes.Unavailable {
		t.Errorf("the error is %v", err)
	}
}

func TestAContextThatEndsIsFoundInTheError(t *testing.T) {
	server := serve(t)
	began, release := make(chan struct{}), make(chan struct{})
	server.getLogs = func(*v1.GetTaskLogsRequest) (*v1.GetTaskLogsResponse, error) {
		close(began)
		<-release
		return nil, errors.New("too late")
	}
	ctx, cancel := context.WithCancel(bounded(t))
	go func() {
		<-began
		cancel()
	}()
	defer close(release)

	_, err := connect(t, server.address).Get(ctx, task, nil)

	if !errors.Is(err, context.Canceled) || status.Code(err) != codes.Canceled {
		t.Errorf("the error is %v", err)
	}
}
