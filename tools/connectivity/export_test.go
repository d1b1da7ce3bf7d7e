package connectivity

// ExecByAPI is what NewCluster executes by unless told otherwise.
var ExecByAPI = execByAPI
