package dataset
import ("testing";"os")
func TestDump(t *testing.T){
 for _,f:=range []string{"imagenet_sample_500.zip","cifar10_jpg_train.zip"} {
 s,err:=Open("/work/shared/data/"+f,Options{Limit:500}); if err!=nil{t.Fatal(err)}
 o,_:=os.Create("/tmp/pil/"+f+".raw")
 for i:=range s.Len(){ m,_,err:=s.At(i); if err!=nil{t.Fatal(err)}; o.Write(m.Pix)}
 o.Close()
 }
}
