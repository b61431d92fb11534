package tasklogs_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tasklogs/clients/go/tasklogs"
	v1 "tasklogs/clients/go/tasklogs/v1"
)

type stream = grpc.ServerStreamingServer[v1.FollowTaskLogsResponse]

func active(cursor string) *v1.FollowTaskLogsResponse {
	return &v1.FollowTaskLogsResponse{
		Cursor: cursor,
		Event: &v1.FollowTaskLogsResponse_Status{
			Status: &v1.StatusChanged{Status: tasklogs.StatusActive},
		},
	}
}

// held serves follows that send a status and then nothing, until the caller leaves.
func held(left chan<- struct{}) func(*v1.FollowTaskLogsRequest, stream) error {
	return func(_ *v1.FollowTaskLogsRequest, s stream) error {
		if err := s.Send(active("c0")); err != nil {
			return err
		}
		<-s.Context().Done()
		left <- struct{}{}
		return nil
	}
}

func TestALoopThatEndsLeavesTheServer(t *testing.T) {
	server := serve(t)
	left := make(chan struct{}, 1)
	server.follow = held(left)
	for event, err := range connect(t, server.address).Follow(bounded(t), task, nil) {
		if err != nil || event.Cursor() != "c0" {
			t.Errorf("%v, %v", event, err)
		}
		break
	}
	receive(t, left)
}

func TestAFollowEndsWithItsContextAndWithTheClient(t *testing.T) {
	server := serve(t)
	left := make(chan struct{}, 1)
	server.follow = held(left)
	client := connect(t, server.address)
	ctx, cancel := context.WithCancel(bounded(t))
	checkEnd(t, client, ctx, cancel, context.Canceled)
	receive(t, left)
	checkEnd(t, client, bounded(t), func() { _ = client.Close() }, tasklogs.ErrClosed)
	receive(t, left)
	if _, err := client.Get(bounded(t), task, nil); !errors.Is(err, tasklogs.ErrClosed) {
		t.Errorf("a read afterwards: %v", err)
	}
}

func checkEnd(
	t *testing.T, client *tasklogs.Client, ctx context.Context, end func(), want error,
) {
	t.Helper()
	var last error
	count := 0
	for _, err := range client.Follow(ctx, task, nil) {
		count++
		if last = err; err == nil {
			end()
		}
	}
	if count != 2 || !errors.Is(last, want) {
		t.Errorf("%d steps, then %v", count, last)
	}
}

func receive(t *testing.T, from <-chan struct{}) {
	t.Helper()
	select {
	case <-from:
	case <-time.After(time.Minute):
		t.Fatal("the stream goes on")
	}
}

func TestAFollowWithoutAServerEndsWithTheCause(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	told := 0
	options := &tasklogs.FollowOptions{
		ConnectTimeout: 100 * time.Millisecond,
		OnReconnect:    func(*tasklogs.Reconnecting) { told++ },
	}
	for _, err := range connect(t, address).Follow(bounded(t), task, options) {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("the error is %v", err)
		}
	}
	if told == 0 {
		t.Error("no attempt was told")
	}
}

func TestAFollowGivesUpAfterItsReconnectTimeout(t *testing.T) {
	server := serve(t)
	opened := 0
	server.follow = func(_ *v1.FollowTaskLogsRequest, s stream) error {
		if opened++; opened == 1 {
			if err := s.Send(active("c0")); err != nil {
				return err
			}
		}
		return refused(codes.Unavailable, tasklogs.ErrDraining)
	}
	told := 0
	options := &tasklogs.FollowOptions{
		ReconnectTimeout: 500 * time.Millisecond,
		OnReconnect:      func(*tasklogs.Reconnecting) { told++ },
	}
	var last error
	for _, err := range connect(t, server.address).Follow(bounded(t), task, options) {
		last = err
	}
	if !errors.Is(last, tasklogs.ErrDraining) || told == 0 {
		t.Errorf("after %d attempts: %v", told, last)
	}
}

func TestAStreamThatFallsSilentIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("a silence takes 11 s")
	}
	t.Parallel()
	server := serve(t)
	cursors := make(chan string, 2)
	server.follow = func(r *v1.FollowTaskLogsRequest, s stream) error {
		cursors <- r.GetCursor()
		if err := s.Send(active("c" + r.GetCursor())); err != nil {
			return err
		}
		if r.GetCursor() != "" {
			return refused(codes.NotFound, tasklogs.ErrTaskNotFound)
		}
		<-s.Context().Done()
		return nil
	}
	options := &tasklogs.FollowOptions{ProgressInterval: time.Second}
	var last error
	for _, err := range connect(t, server.address).Follow(bounded(t), task, options) {
		last = err
	}
	if first, second := <-cursors, <-cursors; first != "" || second != "c" {
		t.Errorf("the cursors are %q and %q", first, second)
	}
	if !errors.Is(last, tasklogs.ErrTaskNotFound) {
		t.Errorf("the error is %v", last)
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	server := serve(t)
	left := make(chan struct{}, 50)
	server.follow = held(left)
	before := runtime.NumGoroutine()
	for range 50 {
		client, err := tasklogs.NewClient(server.address)
		if err != nil {
			t.Fatal(err)
		}
		for range client.Follow(bounded(t), task, nil) {
			break
		}
		receive(t, left)
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	deadline := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before+5 {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

func TestATailAndACursorTogetherAreRefused(t *testing.T) {
	options := &tasklogs.FollowOptions{Tail: tasklogs.Last(1), Cursor: "c"}
	for _, err := range connect(t, serve(t).address).Follow(bounded(t), task, options) {
		if err == nil {
			t.Error("no error")
		}
	}
}
